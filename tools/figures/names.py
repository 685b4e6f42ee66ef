"""The public names of the package, each with the first line of its docstring."""

from __future__ import annotations

import importlib
import inspect

from tools.figures.on_record import table

SPACES = {
    "top": "",
    "operators": ".operators",
    "metrics": ".metrics",
    "network": ".network",
    "reduction": ".reduction",
    "testing": ".testing",
    "lab": ".lab",
    "mixers": ".lab.mixers",
    "tasks": ".lab.tasks",
    "training": ".lab.training",
    "zoo": ".lab.zoo",
}


def names() -> dict[str, str]:
    """A table for each namespace."""
    return {space: _names(f"statesize{end}") for space, end in SPACES.items()}


def _names(space: str) -> str:
    module = importlib.import_module(space)
    rows = [(f"`{name}`", _first_line(value)) for name in module.__all__ if callable(value := getattr(module, name))]
    return table(("name", "what it is"), rows)


def _first_line(value: object) -> str:
    """The sentence at the top of a docstring; bars would end a cell of a table."""
    text = (inspect.getdoc(value) or "").partition("\n\n")[0]
    return " ".join(text.split()).replace("|", "\\|")
