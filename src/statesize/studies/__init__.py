"""Studies: grids of training runs, and what they say about effective state-size."""
