"""Clusters of real processes on this machine, and what stands in for their models."""
