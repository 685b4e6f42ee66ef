"""All commands, each with examples; they are registered by importing this."""

from __future__ import annotations

from statesize.cli.app import add, app, bench, install_completion
from statesize.cli.bench import engines as bench_engines
from statesize.cli.bench import models as bench_models
from statesize.cli.cache import cache
from statesize.cli.compare import compare, report
from statesize.cli.compress import compress
from statesize.cli.doctor import doctor
from statesize.cli.engines import engines, models
from statesize.cli.network import network
from statesize.cli.profile import profile
from statesize.cli.truncate import truncate
from statesize.cli.watch import watch
from statesize.laboratory import add_commands

__all__ = ["app"]

app.command(bench)


# The commands import torch and the like when they are called, which --help and --version need not wait for.


add("engines", bench_engines, "--quick", "--threads 8 --output engines.json", group_app=bench)
add("models", bench_models, "--case mamba_2 --quick", group_app=bench)
add(
    "cache",
    cache,
    "model.gguf --text notes.txt",
    "FOLDER --jsonl docs.jsonl --keep 10% --ratios shares.npy",
)
add("compare", compare, "gla-notes sa-notes", "gla-notes sa-notes --recall recall.json --html both.html")
add(
    "compress",
    compress,
    "gla --text notes.txt --state 50% --output gla-half",
    "run --text notes.txt --state 25% --int8 --output small",
)
add("doctor", doctor, "")
add("engines", engines, "", "--explain --operator recurrence --states 16 --units 4096")
add("models", models, "")
add(
    "network",
    network,
    "gla --text notes.txt --max-tokens 32 --html all.html",
    "FOLDER --ids ids.jsonl --positions 1 --accuracy 0.1",
)
add(
    "profile",
    profile,
    "gpt2 --open",
    "model.gguf --text notes.txt --output result",
    "state-spaces/mamba-130m-hf --jsonl docs.jsonl --plan",
    "FOLDER --parquet corpus --sequences 100 --output result",
    "FOLDER --ids ids.jsonl",
)
add("report", report, "result --output result.html", "statesize-study-regimes-smoke")
add("truncate", truncate, "model.gguf --jsonl docs.jsonl --html cut.html", "gla --text notes.txt --max-tokens 256")
add("watch", watch, "gla --html notes.html < notes.txt", "gla --generate 100 < prompt.txt")
add_commands()
add("--install-completion", install_completion, "", "--shell bash --output statesize.bash")
