"""All commands, each with examples; they are registered by importing this."""

from __future__ import annotations

from statesize.cli.app import WHOLE, add, app, install_completion
from statesize.cli.cache import cache
from statesize.cli.compare import compare
from statesize.cli.compress import compress
from statesize.cli.doctor import doctor
from statesize.cli.models import models
from statesize.cli.network import network
from statesize.cli.profile import profile
from statesize.cli.truncate import truncate
from statesize.laboratory import add_commands

__all__ = ["app"]

# The commands import torch and the like when they are called, which --help and --version need not wait for.
add(
    "profile",
    profile,
    "gpt2 --open",
    "model.gguf --text notes.txt --output result",
    "result --html result.html",
    "state-spaces/mamba-130m-hf --jsonl docs.jsonl --plan",
    "FOLDER --parquet corpus --sequences 100 --output result",
    "FOLDER --ids ids.jsonl",
)
add("compare", compare, "gla-notes sa-notes", "gla-notes sa-notes --recall recall.json --html both.html")
add("truncate", truncate, "model.gguf --jsonl docs.jsonl --html cut.html", "gla --text notes.txt --max-tokens 256")
add(
    "cache",
    cache,
    "model.gguf --text notes.txt",
    "FOLDER --jsonl docs.jsonl --keep 10% --ratios shares.npy",
)
add("models", models, "")
add("doctor", doctor, "")
add(
    "compress",
    compress,
    "gla --text notes.txt --state 50% --output gla-half",
    "run --text notes.txt --state 25% --int8 --output small",
    title=WHOLE,
)
add(
    "network",
    network,
    "gla --text notes.txt --max-tokens 32 --html all.html",
    "FOLDER --ids ids.jsonl --positions 1 --accuracy 0.1",
    title=WHOLE,
)
add_commands()
add("--install-completion", install_completion, "", "--shell bash --output statesize.bash")
