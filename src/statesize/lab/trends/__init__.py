"""Series of measurements: ESS through the checkpoints of a training, and against the length of the context."""
