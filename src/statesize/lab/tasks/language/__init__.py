"""Language modelling: a corpus, and the task over it."""
