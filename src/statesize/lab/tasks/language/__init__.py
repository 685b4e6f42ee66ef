"""Language modelling: a corpus, the task over it, and the n-gram models that a text model must beat."""
