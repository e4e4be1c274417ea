"""Training of small models beside a target: its responses, their split, and distillation."""
