"""All that knows lm-eval's internals: plugin discovery, requests, task settings."""
