"""Distillation of small drafts of a model, for ``--model draft-eu``."""
