"""The public names of the package, those at the top and the metrics with the first line of their docstrings."""

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
    """Tables of what most users need; of the other namespaces only the names."""
    top = {id(value) for value in _callables("statesize").values()}
    return {space: _names(f"statesize{end}", top if end else set()) for space, end in SPACES.items()}


def _names(space: str, above: set[int]) -> str:
    """The names of a namespace that do not stand at the top."""
    own = {f"`{name}`": value for name, value in _callables(space).items() if id(value) not in above}
    if space not in ("statesize", "statesize.metrics"):
        return ", ".join(own)
    return table(("name", "what it is"), ((name, _first_line(value)) for name, value in own.items()))


def _callables(space: str) -> dict[str, object]:
    module = importlib.import_module(space)
    return {name: value for name in module.__all__ if callable(value := getattr(module, name))}


def _first_line(value: object) -> str:
    """The sentence at the top of a docstring; bars would end a cell of a table."""
    text = (inspect.getdoc(value) or "").partition("\n\n")[0]
    return " ".join(text.split()).replace("|", "\\|")
