"""Commands that other packages bring, listed without importing what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MODELS = "Measure and explain a model"
"""Title of the commands that measure models."""
COMMANDS = "statesize.commands"
"""Group of entry points, each a tuple of `Command`."""


@dataclass(frozen=True)
class Command:
    """A command of another package.

    The module that holds it is imported to list commands, so it should import little. In `pyproject.toml` of the
    package::

        [project.entry-points."statesize.commands"]
        mine = "my_package.commands:COMMANDS"

    Attributes:
        name: As it is typed after `statesize`: one word, or two of which several commands share the first.
        group: Title under which `statesize --help` lists it.
        help: What it does; the first line stands in the list. None takes the docstring of a function that is at hand.
        function: "module:name" of a function, or of a `cyclopts.App` of several, imported when it is called.
        examples: What follows the name in examples of its help; an App has its own.
    """

    name: str
    group: str
    help: str | None
    function: str | Callable[..., None]
    examples: tuple[str, ...] = ()
