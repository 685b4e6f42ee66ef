"""ESS through the checkpoints of a training (`series`), and by the length of the context (`length`), each a `Trend`."""
