"""The program and its commands, each with examples; they are registered by importing this."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

from cyclopts import App, Group

from statesize.cli.cache import cache
from statesize.cli.compare import compare
from statesize.cli.plugins import COMMANDS, MODELS, Command
from statesize.cli.profile import profile
from statesize.cli.truncate import truncate
from statesize.io.plugins import loaded_plugins
from statesize.version import installed

# The commands import torch and the like when they are called, which --help and --version need not wait for.
_OWN = (
    Command(
        "profile", MODELS, None, profile,
        ("gpt2 --open", "model.gguf --text notes.txt", "FOLDER --text docs.jsonl --sequences 100"),
    ),
    Command("compare", MODELS, None, compare, ("gla-profile sa-profile", "gla-profile sa-profile --html both.html")),
    Command(
        "truncate", MODELS, None, truncate,
        ("model.gguf --text docs.jsonl --html cut.html", "gla --text notes.txt --max-tokens 256"),
    ),
    Command(
        "cache", MODELS, None, cache,
        ("model.gguf --text notes.txt", "FOLDER --text docs.jsonl --keep 10% --output prices.json"),
    ),
)  # fmt: skip


def _versions() -> str:
    """Versions of the packages that numbers depend on, and the devices, a line each."""
    versions = installed("torch", "transformers", "numpy")
    devices = ["CPU"]
    # A torch that knows the CPU alone need not be imported, which takes one to two seconds.
    if not versions.get("torch", "+cpu").endswith("+cpu"):
        import torch

        devices += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        devices += ["MPS"] * torch.backends.mps.is_available()
    return "\n".join(f"{name} {value}" for name, value in {**versions, "device": ", ".join(devices)}.items())


app = App(
    name="statesize",
    help="Measure how much of its memory a sequence model really uses: the effective state-size (ESS).",
    # Paragraphs of docstrings fill the width of the terminal, and examples stand as they are written.
    help_format="markdown",
    version=_versions,
    version_format="plaintext",
    suppress_keyboard_interrupt=False,
    # What is used most stands between them.
    group_arguments=Group("Arguments", sort_key=0),
    group_parameters=Group("Parameters", sort_key=3),
)


def _register() -> None:
    """Add all commands, those of other packages under titles of their own."""
    plugged = chain.from_iterable(cast("Iterator[tuple[Command, ...]]", loaded_plugins(COMMANDS, tuple)))
    groups, rooms = {MODELS: Group(MODELS, sort_key=1)}, {"": app}
    for order, command in enumerate([*_OWN, *plugged]):
        group = groups.setdefault(command.group, Group(command.group, sort_key=3))
        room, _, name = command.name.rpartition(" ")
        if room not in rooms:
            rooms[room] = App(name=room, help=command.group, group=group, sort_key=order)
            app.command(rooms[room])
        options: dict[str, Any] = {}
        if command.examples:
            examples = [f"    statesize {command.name} {end}".rstrip() for end in command.examples]
            options["help_epilogue"] = "\n".join([f"Example{'s' * (len(examples) > 1)}:\n", *examples])
        rooms[room].command(command.function, name=name, help=command.help, sort_key=order, group=group, **options)


_register()
app.register_install_completion_command(help="Let the shell complete commands and options.")
