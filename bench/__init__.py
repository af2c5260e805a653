"""Experiments: local clusters, load, a simulator, reports. ``python -m bench --help`` lists the commands."""
