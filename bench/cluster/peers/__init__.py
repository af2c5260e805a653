"""Servers of other makes, in environments of their own: nothing here imports anything of ours but its neighbours."""
