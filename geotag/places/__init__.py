"""Places: the class tree of a model and how its scores become probabilities."""
