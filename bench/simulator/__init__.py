"""A discrete-event simulator of a cluster, around the frontend's own policy."""
