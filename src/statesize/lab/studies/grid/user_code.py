"""Mixers and tasks of one's own in a study: the file that registers them, in every process, and their part in keys."""

from __future__ import annotations

import hashlib
import inspect
import linecache
import sys
import traceback
import types
from dataclasses import dataclass
from pathlib import Path

from statesize.errors import FileError, InputError
from statesize.io.files import require_regular
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.registry import registered_mixer
from statesize.lab.tasks.mixture import Mixture


@dataclass(frozen=True)
class UserModule:
    """A Python file that registers mixers or tasks, as text: what it says is executed in every process of a study.

    Attributes:
        name: Name of the file.
        source: Its text.
    """

    name: str
    source: str


def read_module(path: Path) -> UserModule:
    """Reads a file without executing it.

    Args:
        path: The file.

    Returns:
        The module.

    Raises:
        FileError: It cannot be read.
    """
    try:
        return UserModule(path.name, require_regular(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"the module {path} cannot be read: {error}") from error


def load_module(module: UserModule) -> None:
    """Executes a module, once in a process; another text of the same name replaces it.

    Args:
        module: What to execute.

    Raises:
        InputError: It raises an error.
    """
    name = f"statesize_user_module {module.name}"
    # Not a path: the text may come from another machine, or the file may have changed since it was read.
    file = f"<{module.name} {_digest(module.source)}>"
    if name in sys.modules and sys.modules[name].__file__ == file:
        return
    loaded = types.ModuleType(name)
    loaded.__file__ = file
    linecache.cache[file] = (len(module.source), None, module.source.splitlines(keepends=True), file)
    sys.modules[name] = loaded
    try:
        exec(compile(module.source, file, "exec"), loaded.__dict__)  # noqa: S102
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"the module {module.name} fails: {_message(error, file)}") from error


def user_classes(model: ModelConfig, *tasks: object) -> list[type]:
    """The classes of a run that are not of this package: mixers in the order of the pattern, then tasks."""
    mixers = [registered_mixer(name) for name in dict.fromkeys(model.pattern)]
    parts = [part for task in tasks if task for part in (task.parts if isinstance(task, Mixture) else (task,))]
    return [
        definition
        for definition in (*mixers, *dict.fromkeys(map(type, parts)))
        if definition is not None and not definition.__module__.startswith("statesize.")
    ]


def source_digest(definition: type) -> str:
    """A digest of the source of a class for a run's key; empty where there is no source."""
    # A script or a notebook holds more than the class; of other modules all source counts.
    module = sys.modules.get(definition.__module__)
    try:
        source = inspect.getsource(definition if module is None or module.__name__ == "__main__" else module)
    except (OSError, TypeError):
        return ""
    return _digest(source)


def blamed(error: Exception, classes: list[type]) -> str:
    """The message and the line of an error in a user's code, in one line."""
    files = {getattr(sys.modules.get(definition.__module__), "__file__", None) for definition in classes}
    names = ", ".join(definition.__qualname__ for definition in classes)
    return f"{names} of your own fails: {_message(error, *files)}"


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def _message(error: Exception, *files: str | None) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    place = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"
