"""From a name to a model. Read `load`, then `from_transformers`, `configurations` and `files`."""
