"""All commands, each with examples; they are registered by importing this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App

from statesize.cli.about.completion import install_completion
from statesize.cli.about.doctor import doctor
from statesize.cli.about.engines import engines
from statesize.cli.about.models import models
from statesize.cli.app import app, bench, study

# The commands import torch and the like when they are called, which --help and --version need not wait for.
from statesize.cli.bench.engines import engines as bench_engines
from statesize.cli.bench.models import models as bench_models
from statesize.cli.compare import compare
from statesize.cli.compress import compress
from statesize.cli.network import network
from statesize.cli.profile import profile
from statesize.cli.report import report
from statesize.cli.rerun import rerun
from statesize.cli.watch import watch
from statesize.lab.cli.demo import demo
from statesize.lab.cli.length import length
from statesize.lab.cli.needles import needles
from statesize.lab.cli.series import series
from statesize.lab.cli.study.grid import grid_command
from statesize.lab.cli.study.texts import text_command
from statesize.lab.cli.train import train
from statesize.lab.studies.catalogue import STUDIES
from statesize.lab.studies.study import GridStudy


def _register(group: App, name: str, command: Callable[..., Any], examples: Sequence[str], help: str | None) -> None:
    title = "Example" if len(examples) == 1 else "Examples"
    lines = "\n".join(f"    {example}" for example in examples)
    group.command(command, name=name, help=help, help_epilogue=f"{title}:\n\n{lines}")


def _add(group: App, name: str, command: Callable[..., Any], *ends: str) -> None:
    """Register a command; each of `ends` is what follows its name in an example."""
    words = ("statesize", *(group.name if group is not app else ()), name)
    _register(group, name, command, [" ".join((*words, end)).rstrip() for end in ends], None)


_add(bench, "engines", bench_engines, "--quick", "--threads 8 --output engines.json")
_add(bench, "models", bench_models, "--case mamba_2 --quick")
_add(app, "compare", compare, "gla-notes sa-notes", "gla-notes sa-notes --recall recall.json --html both.html")
_add(
    app,
    "compress",
    compress,
    "gla --text notes.txt --state 50% --output gla-half",
    "run --text notes.txt --state 25% --int8 --output small",
)
_add(app, "demo", demo, "", "--output demo.html --json")
_add(app, "doctor", doctor, "")
_add(app, "engines", engines, "", "--explain --operator recurrence --states 16 --units 4096")
_add(app, "length", length, "gla --lengths 64,128,256,512 --html length.html")
_add(app, "models", models, "")
_add(app, "needles", needles, "gla --depths 8,64 --html needles.html")
_add(
    app,
    "network",
    network,
    "gla --text notes.txt --max-tokens 32",
    "FOLDER --ids ids.jsonl --positions 1 --accuracy 0.1",
)
_add(
    app,
    "profile",
    profile,
    "gpt2 --open",
    "gla --text notes.txt --output result",
    "state-spaces/mamba-130m-hf --jsonl docs.jsonl --plan",
    "FOLDER --parquet corpus --sequences 100 --output result",
    "FOLDER --ids ids.jsonl",
)
_add(app, "rerun", rerun, "result")
_add(app, "report", report, "result --output result.html", "statesize-study-regimes-smoke")
_add(
    app,
    "series",
    series,
    "run --html series.html",
    "EleutherAI/pythia-14m --revisions step0,step1000",
)
for one in STUDIES:
    _register(
        study, one.name, grid_command(one) if isinstance(one, GridStudy) else text_command(one), one.examples, one.help
    )
_add(app, "train", train, "text --mixer gla --output run", "text --mixer gla --output run --resume --export gla")
_add(app, "watch", watch, "gla < notes.txt", "gla --generate 100 < prompt.txt")
_add(app, "--install-completion", install_completion, "", "--shell bash --output statesize.bash")
