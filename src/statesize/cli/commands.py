"""All commands, each with examples; they are registered by importing this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from cyclopts import Group

from statesize.cli.app import add, app, install_completion, register
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
        for one in commands:
            title = groups.setdefault(one.group, Group(one.group, sort_key=3))
            examples = [f"statesize {one.name} {end}".rstrip() for end in one.examples]
            register(app, title, one.name, one.function, examples, one.help)


# The commands import torch and the like when they are called, which --help and --version need not wait for.
add(
    "profile",
    profile,
    "gpt2 --open",
    "model.gguf --text notes.txt --output result",
    "result --html result.html",
    "FOLDER --parquet corpus --sequences 100 --output result",
    "FOLDER --ids ids.jsonl",
)
add("compare", compare, "gla-notes sa-notes", "gla-notes sa-notes --html both.html")
add("truncate", truncate, "model.gguf --jsonl docs.jsonl --html cut.html", "gla --text notes.txt --max-tokens 256")
add(
    "cache",
    cache,
    "model.gguf --text notes.txt",
    "FOLDER --jsonl docs.jsonl --keep 10% --output prices.json",
)
add_plugins()
add("--install-completion", install_completion, "", "--shell bash --output statesize.bash")
