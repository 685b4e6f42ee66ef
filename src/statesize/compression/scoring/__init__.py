"""What a model makes of held-out documents: the loss of each, right answers, and intervals over documents."""
