"""A benchmark of trained models, each in a folder: one row or more each, printed and written as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import document
from statesize.io.files import replace_file

Row = dict[str, Any]


def measure_folders(description: str | None, rows: Callable[[str], Sequence[Row]], always: Sequence[str] = ()) -> None:
    """Measure the models that the command line names, after those that are always measured, on one thread."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folders", nargs="*" if always else "+")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Row] = []
    for name in (*always, *given.folders):
        own = rows(name)
        print(json.dumps(own, indent=1), flush=True)
        found += own
    if given.output is not None:
        replace_file(given.output, (json.dumps(document(found), indent=1) + "\n").encode())
