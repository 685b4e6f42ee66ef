"""Tasks to train and evaluate sequence models on."""

from statesize.tasks.corpus import Corpus, python_prose, read_documents, read_text
from statesize.tasks.task import Task
from statesize.tasks.text import TextTask, byte_count, encode, train_tokenizer

__all__ = [
    "Corpus",
    "Task",
    "TextTask",
    "byte_count",
    "encode",
    "python_prose",
    "read_documents",
    "read_text",
    "train_tokenizer",
]
