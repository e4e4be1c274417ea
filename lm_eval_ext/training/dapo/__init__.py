"""DAPO training on graded questions, with or without random soft prompts in the rollouts."""
