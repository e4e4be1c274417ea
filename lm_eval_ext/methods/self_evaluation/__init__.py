"""A model's own judgement of its answers: the question, its layout, and the confidence read off."""
