"""Commands that belong to no stage of a run."""
