"""Script `brier`."""
