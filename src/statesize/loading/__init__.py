"""From a name to a model: bundled, a checkpoint, or a model of transformers; what is refused, and digests."""
