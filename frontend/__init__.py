"""The frontend: admission, groups, the straggler policy, and the dispatcher that obeys it."""
