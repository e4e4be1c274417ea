"""The attempt store: what was generated is kept, and a rerun generates only what is missing."""
