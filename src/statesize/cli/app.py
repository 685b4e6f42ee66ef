"""The program, its commands in groups, and how one is added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from cyclopts import App, Group

from statesize.version import installed


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

MODELS = Group("Measure and explain a model", sort_key=1)


_order = count()


def register(
    group_app: App,
    title: Group | None,
    name: str,
    command: Callable[..., Any] | str,
    examples: Sequence[str],
    help: str | None = None,
) -> None:
    """Add a command, or where to import it, to a group of commands, under a title; its help ends with examples."""
    options: dict[str, Any] = {} if title is None else {"group": title}
    if examples:
        heading = "Example" if len(examples) == 1 else "Examples"
        lines = "\n".join(f"    {example}" for example in examples)
        options["help_epilogue"] = f"{heading}:\n\n{lines}"
    group_app.command(command, name=name, help=help, sort_key=next(_order), **options)


def add(name: str, command: Callable[..., Any], *ends: str) -> None:
    """Add a command, under the title of models; each of `ends` is what follows its name in an example."""
    register(app, MODELS, name, command, [f"statesize {name} {end}".rstrip() for end in ends])
