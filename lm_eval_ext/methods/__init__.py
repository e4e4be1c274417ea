"""What only one wrapper uses, by method."""
