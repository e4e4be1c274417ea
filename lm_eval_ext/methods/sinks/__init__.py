"""Attention sinks: how much attention each head gives to the first token."""
