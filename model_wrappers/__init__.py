"""Model wrappers: one module per method, named as its ``--model`` name."""
