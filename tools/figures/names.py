"""The public names of the package, by namespace."""

from __future__ import annotations

import importlib

from tools.figures.on_record import table

SPACES = (
    "statesize",
    "statesize.operators",
    "statesize.metrics",
    "statesize.reduction",
    "statesize.testing",
    "statesize.lab",
    "statesize.lab.mixers",
    "statesize.lab.tasks",
    "statesize.lab.training",
    "statesize.lab.zoo",
)


def names() -> dict[str, str]:
    """A table with the names of each namespace; one that stands at the top is not listed again."""
    top = {id(value) for value in _callables("statesize").values()}
    rows = ((f"`{space}`", _names(space, set() if space == "statesize" else top)) for space in SPACES)
    return {"table": table(("namespace", "names"), rows)}


def _names(space: str, above: set[int]) -> str:
    return ", ".join(f"`{name}`" for name, value in _callables(space).items() if id(value) not in above)


def _callables(space: str) -> dict[str, object]:
    module = importlib.import_module(space)
    return {name: value for name in module.__all__ if callable(value := getattr(module, name))}
