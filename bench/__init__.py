"""Experiments: a local cluster of real processes, load, latency tables, reports and the demo."""
