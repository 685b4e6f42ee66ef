"""Tasks to train and evaluate sequence models on.

Read `base`, then a task; `text` is for text. A generated task is a dataclass in a file under `@task("name")`.
"""

from statesize.lab.tasks.base import IGNORED, SyntheticTask, Task, build_task, task
from statesize.lab.tasks.compression import Compression
from statesize.lab.tasks.mqar import MQAR
from statesize.lab.tasks.rebinding import Rebinding
from statesize.lab.tasks.selective_copying import SelectiveCopying
from statesize.lab.tasks.text import Corpus, TextTask, encode, read_text, train_tokenizer

__all__ = [
    "IGNORED",
    "MQAR",
    "Compression",
    "Corpus",
    "Rebinding",
    "SelectiveCopying",
    "SyntheticTask",
    "Task",
    "TextTask",
    "build_task",
    "encode",
    "read_text",
    "task",
    "train_tokenizer",
]
__dir__ = __all__.copy
