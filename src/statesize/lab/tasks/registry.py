"""Tasks by name, and from the numbers of a configuration file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from statesize.check import refuse, require_choice, require_kind
from statesize.errors import InputError
from statesize.io.text import meant
from statesize.lab.tasks.arrays import ArrayTask, read_arrays
from statesize.lab.tasks.compression import Compression
from statesize.lab.tasks.mqar import MQAR
from statesize.lab.tasks.rebinding import Rebinding
from statesize.lab.tasks.selective_copying import SelectiveCopying
from statesize.lab.tasks.synthetic import SyntheticTask, number_fields
from statesize.lab.tasks.task import StudyTask

_TASKS: dict[str, type[SyntheticTask]] = {
    "mqar": MQAR,
    "selective_copying": SelectiveCopying,
    "compression": Compression,
    "rebinding": Rebinding,
}


_ARRAY_FIELDS = ("file", "held_out_sequences", "sha256")
ARRAYS = "arrays"
"""Name of the task that is not built from numbers."""


def task_names() -> tuple[str, ...]:
    """The names of generated tasks that `build_task` knows, in the order in which they were registered."""
    return tuple(_TASKS)


def register_task(name: str, task: type) -> None:
    """Makes a task of your own known by a name, wherever a task is named: `build_task`, grids and their files.

    Args:
        name: its name. A name is taken once; running the definition of the same class again, as in a notebook,
            replaces it.
        task: a frozen dataclass that inherits `SyntheticTask`.

    Raises:
        InputError: the name is taken, or the class is not such a one or not complete.
    """
    require_kind("name", name, str, "a string")
    if not (inspect.isclass(task) and issubclass(task, SyntheticTask)):
        refuse("task", "a class that inherits statesize.lab.tasks.SyntheticTask", cast("object", task))
    if "__dataclass_params__" not in vars(task):
        raise InputError(f"task must be a dataclass, got {task.__name__}. Put @dataclass(frozen=True) above it.")
    fields = number_fields(task)
    missing = set(task.__abstractmethods__) | {
        part for part in ("vocabulary_size", "length") if part not in fields and not hasattr(task, part)
    }
    if missing:
        raise InputError(
            f"task must have {', '.join(sorted(missing))}, got {task.__name__} without. See SyntheticTask of "
            "statesize.lab.tasks."
        )
    known = {ARRAYS: ArrayTask, **_TASKS}.get(name, task)
    if (known.__module__, known.__qualname__) != (task.__module__, task.__qualname__):
        raise InputError(f"name must be one that no other task has, got {name!r}, that of {known.__qualname__}.")
    _TASKS[name] = task


def build_task(settings: Mapping[str, object]) -> StudyTask:
    """A task from its name and numbers, as a dictionary or a TOML table gives them.

    Args:
        settings: `name`, and numbers of the task by the names of its fields; those left out have their defaults. The
            name "arrays" takes what `read_arrays` does.

    Returns:
        The task.

    Raises:
        InputError: the name is not known, a field does not exist or is missing, or a number does not fit.
        FileError: a file of arrays cannot be read.

    Examples:
        >>> build_task({"name": "mqar", "pairs": 4, "length": 32}).chance
        0.25
    """
    require_kind("settings", settings, Mapping, "a mapping of a task's name and numbers")
    numbers = dict(settings)
    known = (*_TASKS, ARRAYS)
    name = require_choice("task name", numbers.pop("name", None), known)
    fields = _ARRAY_FIELDS if name == ARRAYS else tuple(number_fields(_TASKS[name]))
    for field in numbers:
        if field not in fields:
            near = meant(field, fields, "")
            said = f"A number of task {name} must be one of {', '.join(fields)}, got {field!r}. {near}"
            raise InputError(said.rstrip())
    make = cast("Callable[..., StudyTask]", read_arrays if name == ARRAYS else _TASKS[name])
    try:
        return make(**numbers)
    except TypeError as error:
        raise InputError(f"Task {name} cannot be built: {error}. Its numbers are {', '.join(fields)}.") from error


def task_settings(task: StudyTask) -> dict[str, Any]:
    """What `build_task` builds an equal task from: its name and its numbers, ready for JSON and TOML.

    Args:
        task: a task of a registered class, or of a file of arrays.

    Returns:
        The settings.

    Raises:
        InputError: the class is not registered, or arrays are in no file.
    """
    if isinstance(task, ArrayTask):
        if not task.file:
            raise InputError("arrays must be read from a file, got some in memory. Read them with read_arrays.")
        return {"name": ARRAYS, **{name: getattr(task, name) for name in _ARRAY_FIELDS}}
    for name, known in _TASKS.items():
        if isinstance(task, SyntheticTask) and known is type(task):
            numbers = {field: getattr(task, field) for field in number_fields(known)}
            # Switches at their defaults are left out, so that runs keep their keys where a task has a new one.
            unused = {
                field
                for field, value in numbers.items()
                if isinstance(value, bool) and value is getattr(known, field, None)
            }
            return {"name": name, **{field: value for field, value in numbers.items() if field not in unused}}
    raise InputError(f"task must be registered, got {type(task).__qualname__}. Register it with register_task first.")
