"""Tasks to train and evaluate sequence models on.

Read `task` and `synthetic`, then one of the tasks; `language` is for text. A task is a subclass of `SyntheticTask` in
the file of its family, and a line in the list of `registry`.
"""

from statesize.lab.tasks.arrays import ArrayTask, from_arrays, read_arrays
from statesize.lab.tasks.copying import Compression, Copying, SelectiveCopying, most_frequent_share
from statesize.lab.tasks.language.corpus import Corpus, python_prose, read_text
from statesize.lab.tasks.language.text import TextTask, byte_count, encode, train_tokenizer
from statesize.lab.tasks.mixture import Mixture
from statesize.lab.tasks.mqar import MQAR
from statesize.lab.tasks.rebinding import Rebinding
from statesize.lab.tasks.registry import build_task, register_task, task_names, task_settings
from statesize.lab.tasks.synthetic import SyntheticTask
from statesize.lab.tasks.task import IGNORED, Task
from statesize.texts.rows import read_documents

__all__ = [
    "IGNORED",
    "MQAR",
    "ArrayTask",
    "Compression",
    "Copying",
    "Corpus",
    "Mixture",
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
