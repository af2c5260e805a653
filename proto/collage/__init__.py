"""The contract and what every process of the cluster shares: stubs, tensors, model descriptions, serving, client."""
