"""The sampling engine: N attempts of a prompt from one prefill.

`decoding` runs the attempts, `shared_prefix` computes attention over the prompt once for all its
attempts, `fallback` serves architectures that mechanism does not fit. Nothing here knows lm-eval.
"""
