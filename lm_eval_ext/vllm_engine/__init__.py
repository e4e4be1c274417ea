"""Sample attempts with vLLM: its batching and caches, and this package's random streams."""
