"""Figures read back, compared and drawn."""
