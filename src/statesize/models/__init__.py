"""From a name to a model. Read `load`, then `from_transformers` and `gguf_config`."""
