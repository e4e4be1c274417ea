"""Diagnoses: what a method does to a model, beyond its scores."""
