"""The bundled models and the bundled text."""

from statesize.lab.zoo.bundled import documents, load, names, recall_names, record, tokenizer

__all__ = ["documents", "load", "names", "recall_names", "record", "tokenizer"]
