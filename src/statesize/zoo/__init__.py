"""The bundled models and the bundled text."""

from statesize.zoo.bundled import documents, load, names, record, tokenizer

__all__ = ["documents", "load", "names", "record", "tokenizer"]
