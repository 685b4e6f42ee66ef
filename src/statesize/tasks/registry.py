"""Tasks by name, and from the numbers of a configuration file."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import cast

from statesize.check import refuse, require_kind
from statesize.errors import InputError
from statesize.tasks.compression import Compression
from statesize.tasks.copying import Copying
from statesize.tasks.mad.compression import MADCompression
from statesize.tasks.mad.copying import MADSelectiveCopying
from statesize.tasks.mad.fuzzy import MADFuzzyRecall
from statesize.tasks.mad.memorisation import MADMemorisation
from statesize.tasks.mad.recall import MADRecall
from statesize.tasks.mqar import MQAR
from statesize.tasks.rebinding import Rebinding
from statesize.tasks.selective_copying import SelectiveCopying
from statesize.tasks.synthetic import SyntheticTask, number_fields
from statesize.tasks.zoology import ZoologyMQAR

_TASKS: dict[str, type[SyntheticTask]] = {
    "mqar": MQAR,
    "copying": Copying,
    "selective_copying": SelectiveCopying,
    "compression": Compression,
    "rebinding": Rebinding,
    "zoology_mqar": ZoologyMQAR,
    "mad_recall": MADRecall,
    "mad_fuzzy_recall": MADFuzzyRecall,
    "mad_selective_copying": MADSelectiveCopying,
    "mad_compression": MADCompression,
    "mad_memorisation": MADMemorisation,
}


def task_names() -> tuple[str, ...]:
    """The names that `build_task` knows, in the order in which they were registered."""
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
        refuse("task", "a class that inherits statesize.tasks.SyntheticTask", cast("object", task))
    if "__dataclass_params__" not in vars(task):
        raise InputError(f"{task.__name__} is not a dataclass; put @dataclass(frozen=True) above it")
    fields = number_fields(task)
    missing = set(task.__abstractmethods__) | {
        part for part in ("vocabulary_size", "length") if part not in fields and not hasattr(task, part)
    }
    if missing:
        raise InputError(f"{task.__name__} lacks {', '.join(sorted(missing))}; see statesize.tasks.SyntheticTask")
    known = _TASKS.get(name, task)
    if (known.__module__, known.__qualname__) != (task.__module__, task.__qualname__):
        raise InputError(f"the name {name!r} is taken by {known.__qualname__}; choose another")
    _TASKS[name] = task


def build_task(settings: Mapping[str, object]) -> SyntheticTask:
    """A task from its name and numbers, as a dictionary or a TOML table gives them.

    Args:
        settings: `name`, and numbers of the task by the names of its fields; those left out have their defaults.

    Returns:
        The task.

    Raises:
        InputError: the name is not known, a field does not exist or is missing, or a number does not fit.

    Examples:
        >>> build_task({"name": "mqar", "pairs": 4, "length": 32}).chance
        0.25
    """
    require_kind("settings", settings, Mapping, "a mapping of a task's name and numbers")
    numbers = dict(settings)
    name = numbers.pop("name", None)
    if not isinstance(name, str) or name not in _TASKS:
        refuse("task name", f"one of {', '.join(_TASKS)}", name)
    fields = number_fields(_TASKS[name])
    for field in numbers:
        if field not in fields:
            close = difflib.get_close_matches(field, fields, n=1)
            meant = f"did you mean {close[0]}?" if close else f"it has {', '.join(fields)}"
            raise InputError(f"task {name} has no number {field!r}; {meant}")
    try:
        return _TASKS[name](**numbers)  # pyright: ignore[reportArgumentType]
    except TypeError as error:
        raise InputError(f"task {name} cannot be built: {error}; its numbers are {', '.join(fields)}") from error


def task_settings(task: SyntheticTask) -> dict[str, str | int | float | bool]:
    """What `build_task` builds an equal task from: its name and all of its numbers, ready for JSON and TOML.

    Args:
        task: a task of a registered class.

    Returns:
        The settings.

    Raises:
        InputError: the class is not registered.
    """
    for name, known in _TASKS.items():
        if known is type(task):
            return {"name": name, **{field: getattr(task, field) for field in number_fields(known)}}
    raise InputError(f"task must be registered, got {type(task).__qualname__}. Register it with register_task first.")
