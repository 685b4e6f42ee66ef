"""Tasks to train and evaluate sequence models on.

Read `task` and `synthetic`, then one of the tasks; `text` and `corpus` are for text. A generated task is a subclass of
`SyntheticTask` in a file of its own, and a line in the list of `registry`.
"""

from statesize.lab.tasks.arrays import ArrayTask, from_arrays, read_arrays
from statesize.lab.tasks.compression import Compression
from statesize.lab.tasks.corpus import Corpus, python_prose, read_text
from statesize.lab.tasks.mqar import MQAR
from statesize.lab.tasks.rebinding import Rebinding
from statesize.lab.tasks.registry import build_task, register_task, task_names, task_settings
from statesize.lab.tasks.selective_copying import SelectiveCopying
from statesize.lab.tasks.symbols import most_frequent_share
from statesize.lab.tasks.synthetic import SyntheticTask
from statesize.lab.tasks.task import IGNORED, Task
from statesize.lab.tasks.text import TextTask, byte_count, encode, train_tokenizer
from statesize.texts.rows import read_documents

__all__ = [
    "IGNORED",
    "MQAR",
    "ArrayTask",
    "Compression",
    "Corpus",
    "Rebinding",
    "SelectiveCopying",
    "SyntheticTask",
    "Task",
    "TextTask",
    "build_task",
    "byte_count",
    "encode",
    "from_arrays",
    "most_frequent_share",
    "python_prose",
    "read_arrays",
    "read_documents",
    "read_text",
    "register_task",
    "task_names",
    "task_settings",
    "train_tokenizer",
]
__dir__ = __all__.copy
