"""Scripts for Hugging Face ``evaluate.load``; `lm_eval_ext.evaluate_module` gives their paths.

``evaluate`` copies a script into its own cache and imports it from there, so each stands by itself
and leaves the computation to `lm_eval_ext.metrics`.
"""
