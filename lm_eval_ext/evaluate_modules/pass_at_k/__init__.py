"""Script `pass_at_k`."""
