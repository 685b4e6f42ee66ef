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
    kinds = {base for part in model.modules() for base in type(part).__mro__ if base is not object}
    return {f"{kind.__module__}.{kind.__qualname__}": _source(kind) for kind in kinds}


def _source(kind: type) -> str:
    package = kind.__module__.partition(".")[0]
    try:
        file = Path(inspect.getfile(kind))
        if not _INSTALLED & {*file.parts}:
            return digest(file.read_bytes())
        # The main module of a process of Ray is Ray's own: a class of a script has no file there.
        return "" if package == "__main__" else f"{package} {getattr(sys.modules.get(package), '__version__', '')}"
    except (TypeError, OSError):
        return ""


def tell_without_source(model: nn.Module) -> None:
    """Warn of classes without a file, such as those of a notebook: no later run can know them again."""
    if unknown := sorted(name for name, source in class_sources(model).items() if not source):
        warn_caller(f"{', '.join(unknown)}: no source file was found, so that nothing is kept for a later run.")
