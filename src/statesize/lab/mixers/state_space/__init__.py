"""Mixers whose channels are state-space models: S4D, the same at every input, and the selective S6."""
