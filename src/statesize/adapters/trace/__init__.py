"""T of any torch layer, read from a trace of one run."""
