"""Script `ece`."""
