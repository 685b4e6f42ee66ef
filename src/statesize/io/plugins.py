"""What other packages plug in, by entry points."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import TypeVar, cast

from statesize.io.callers import warn_caller

Kind = TypeVar("Kind")


def loaded_plugins(group: str, kind: type[Kind]) -> Iterator[Kind]:
    """The objects of a group of entry points, which must be of a class; others are left out with a warning."""
    for entry in entry_points(group=group):
        try:
            plugin = cast("object", entry.load())
            if not isinstance(plugin, kind):
                raise TypeError(f"it is no {kind.__name__}")
        except Exception as error:  # whatever another package raises where it is imported
            warn_caller(f"The plug-in {entry.value} is left out: {type(error).__name__}: {error}")
        else:
            yield plugin
