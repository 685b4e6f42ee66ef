"""The program, its commands in two groups, and how one is added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App, Group

from statesize.version import __version__

app = App(
    name="statesize",
    help="Measure how much of its memory a sequence model really uses: the effective state-size (ESS).",
    # Docstrings and examples stand as they are written.
    help_format="plaintext",
    version=__version__,
    suppress_keyboard_interrupt=False,
)


MODELS = Group("Measure, explain and reduce a model", sort_key=1)


LABORATORY = Group("Laboratory: train small models, and see what ESS shows", sort_key=2)


bench = App(name="bench", help="Time the engines.", group=MODELS)


def register(
    group_app: App,
    title: Group,
    name: str,
    command: Callable[..., Any],
    examples: Sequence[str],
    help: str | None = None,
) -> None:
    """Add a command to a group of commands, under a title; its help ends with examples."""
    heading = "Example" if len(examples) == 1 else "Examples"
    lines = "\n".join(f"    {example}" for example in examples)
    group_app.command(command, name=name, group=title, help=help, help_epilogue=f"{heading}:\n\n{lines}")


def add(name: str, command: Callable[..., Any], *ends: str, title: Group = MODELS, group_app: App = app) -> None:
    """Add a command; each of `ends` is what follows its name in an example."""
    words = ("statesize", *(group_app.name if group_app is not app else ()), name)
    register(group_app, title, name, command, [" ".join((*words, end)).rstrip() for end in ends])
