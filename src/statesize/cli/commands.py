"""All commands, each with examples; they are registered by importing this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from cyclopts import Group

from statesize.cli.app import add, app, register
from statesize.cli.cache import cache
from statesize.cli.compare import compare
from statesize.cli.plugins import COMMANDS, Command
from statesize.cli.profile import profile
from statesize.cli.truncate import truncate
from statesize.io.plugins import loaded_plugins

__all__ = ["app"]


def add_plugins() -> None:
    """Add the commands that other packages bring, under titles of their own."""
    groups: dict[str, Group] = {}
    for commands in cast("Iterator[tuple[Command, ...]]", loaded_plugins(COMMANDS, tuple)):
        for command in commands:
            title = groups.setdefault(command.group, Group(command.group, sort_key=3))
            examples = [f"statesize {command.name} {end}".rstrip() for end in command.examples]
            register(app, title, command.name, command.function, examples, command.help)


# The commands import torch and the like when they are called, which --help and --version need not wait for.
add("profile", profile, "gpt2 --open", "model.gguf --text notes.txt", "FOLDER --text docs.jsonl --sequences 100")
add("compare", compare, "gla-profile sa-profile", "gla-profile sa-profile --html both.html")
add("truncate", truncate, "model.gguf --text docs.jsonl --html cut.html", "gla --text notes.txt --max-tokens 256")
add("cache", cache, "model.gguf --text notes.txt", "FOLDER --text docs.jsonl --keep 10% --output prices.json")
add_plugins()
app.register_install_completion_command(help="Let the shell complete commands and options.")
