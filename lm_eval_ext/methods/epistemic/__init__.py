"""Token-level epistemic uncertainty: estimators, the reference posterior, and how they are run."""
