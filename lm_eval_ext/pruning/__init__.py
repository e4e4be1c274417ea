"""Removing attention heads and blocks: which ones, how, and what is left."""
