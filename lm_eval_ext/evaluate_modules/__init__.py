"""Scripts for Hugging Face ``evaluate.load``; `lm_eval_ext.evaluate_module` gives their paths.

``evaluate`` copies a script into its own cache and imports it from there, so a script imports only
by full name: `base` for what the scripts share, `lm_eval_ext.metrics` for the computation.
"""
