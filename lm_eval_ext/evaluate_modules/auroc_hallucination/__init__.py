"""Script `auroc_hallucination`."""
