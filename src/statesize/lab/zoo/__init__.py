"""The bundled models, and the bundled text that they are measured on."""

from statesize.lab.zoo.bundled import load, names, recall_names, record
from statesize.texts.bundled import documents, tokenizer

__all__ = ["documents", "load", "names", "recall_names", "record", "tokenizer"]
__dir__ = __all__.copy
