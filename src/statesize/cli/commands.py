"""All commands, each with examples; they are registered by importing this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cyclopts import App

from statesize.cli.app import app, bench, study

# The commands import torch and the like when they are called, which --help and --version need not wait for.
from statesize.cli.bench.engines import engines as bench_engines
from statesize.cli.bench.models import models as bench_models
from statesize.cli.compare import compare
from statesize.cli.completion import install_completion
from statesize.cli.demo import demo
from statesize.cli.doctor import doctor
from statesize.cli.engines import engines
from statesize.cli.models import models
from statesize.cli.profile import profile
from statesize.cli.report import report
from statesize.cli.rerun import rerun
from statesize.cli.study.grid import grid_command
from statesize.cli.study.texts import text_command
from statesize.cli.train import train
from statesize.cli.watch import watch
from statesize.studies.catalogue import STUDIES
from statesize.studies.study import GridStudy


def _add(group: App, command: Callable[..., Any], *examples: str, name: str = "", help: str | None = None) -> None:
    lines = "\n".join(f"    {example}" for example in examples)
    title = "Example" if len(examples) == 1 else "Examples"
    group.command(command, name=name or command.__name__, help=help, help_epilogue=f"{title}:\n\n{lines}")


_add(
    bench,
    bench_engines,
    "statesize bench engines --quick",
    "statesize bench engines --threads 8 --output engines.json",
)
_add(bench, bench_models, "statesize bench models --case mamba_2 --quick")
_add(
    app,
    compare,
    "statesize compare gla-notes sa-notes",
    "statesize compare gla-notes sa-notes --recall recall.json --html both.html",
)
_add(app, demo, "statesize demo", "statesize demo --output demo.html --json")
_add(app, doctor, "statesize doctor")
_add(
    app,
    engines,
    "statesize engines",
    "statesize engines --explain --operator recurrence --states 16 --units 4096",
)
_add(app, models, "statesize models")
_add(
    app,
    profile,
    "statesize profile gla --text notes.txt",
    "statesize profile state-spaces/mamba-130m-hf --jsonl docs.jsonl --plan",
    "statesize profile FOLDER --parquet corpus --sequences 100 --output result",
    "statesize profile FOLDER --ids ids.jsonl",
)
_add(app, rerun, "statesize rerun result")
_add(
    app,
    report,
    "statesize report result --output result.html",
    "statesize report statesize-study-regimes-smoke",
)
for one in STUDIES:
    command = grid_command(one) if isinstance(one, GridStudy) else text_command(one)
    _add(study, command, *one.examples, name=one.name, help=one.help)
_add(
    app,
    train,
    "statesize train text --mixer gla --output run",
    "statesize train text --mixer gla --output run --resume --export gla",
)
_add(app, watch, "statesize watch gla < notes.txt")
_add(
    app,
    install_completion,
    "statesize --install-completion",
    "statesize --install-completion --shell bash --output statesize.bash",
    name="--install-completion",
)
