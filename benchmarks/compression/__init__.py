"""What the cache of a published model may lose, and whether budgets of its heads carry over."""
