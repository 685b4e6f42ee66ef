"""From a name to a model. Read `load`, then `from_transformers`, `configurations`, `files` and `digests`."""
