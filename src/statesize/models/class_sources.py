"""Digests of the files that hold the classes of a model, by which a later run knows its code again."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from torch import nn

from statesize.io.callers import warn_caller
from statesize.io.files import digest

_INSTALLED = {"site-packages", "dist-packages"}


def class_sources(model: nn.Module) -> dict[str, str]:
    """The digest of each class's file, of an installed package its name and version; "" where there is no file."""
    files = _files(model)
    read = {file: _digest(file) for file in {*files.values()} if isinstance(file, Path)}
    return {name: read[file] if isinstance(file, Path) else file for name, file in files.items()}


def _digest(file: Path) -> str:
    try:
        return digest(file.read_bytes())
    except OSError:
        return ""


def _files(model: nn.Module) -> dict[str, Path | str]:
    """The file of each class, of an installed package its name and version; "" where there is none."""
    kinds = {base for part in model.modules() for base in type(part).__mro__ if base is not object}
    return {f"{kind.__module__}.{kind.__qualname__}": _file(kind) for kind in kinds}


def _file(kind: type) -> Path | str:
    package = kind.__module__.partition(".")[0]
    try:
        file = Path(inspect.getfile(kind))
        # The main module of a process of Ray is Ray's own: a class of a script has no file there.
        if _INSTALLED & {*file.parts}:
            version = getattr(sys.modules.get(package), "__version__", "")
            return "" if package == "__main__" else f"{package} {version}"
        return file if file.is_file() else ""
    except (TypeError, OSError):
        return ""


def tell_without_source(model: nn.Module) -> None:
    """Warn of classes without a file, such as those of a notebook: no later run can know them again."""
    if unknown := sorted(name for name, file in _files(model).items() if not file):
        warn_caller(f"{', '.join(unknown)}: no source file was found, so that nothing is kept for a later run.")
