"""From graded attempts to lm-eval's metrics: questions, suites, sources, aggregations."""
