"""The temperatures of self-evaluation, fitted on training problems."""
