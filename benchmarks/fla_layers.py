"""Layers of flash-linear-attention against its kernels: `python -m benchmarks.fla_layers [NAME …]`.

A tiny layer of each kind, with gates off their defaults, is captured at 32 and 72 positions, so that both the recurrent
and the chunked kernels run, in Triton's interpreter. What T u differs by from what the kernel returned goes into
results/families/fla.json. With names, only these layers are run anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from oracles.fla_layers import FLASH_ATTENTION, IN_TORCH, LAYERS

from benchmarks.cases import made
from statesize.io.files import replace_file

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "results" / "families" / "fla.json"
LENGTHS = (32, 72)


def run(length: int, names: list[str]) -> list[dict[str, Any]]:
    """What one process finds of some layers."""
    command = [sys.executable, "-O", str(ROOT / "tests" / "oracles" / "fla_sweep.py"), "kernels", str(length), *names]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    """Run the layers and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *LAYERS], metavar="NAME")
    names = parser.parse_args().names
    document: dict[str, Any] = json.loads(TABLE.read_text("utf-8")) if TABLE.exists() else {"layers": {}}
    document |= {"schema": 1, "made": made("flash-linear-attention", "triton")}
    kept = document["layers"] if names else {}
    for length in LENGTHS:
        for found in run(length, names):
            kept.setdefault(name := found.pop("name"), {})[f"{found.pop('by')} {found.pop('length')}"] = found
            print(length, name, found["faithfulness"], found["reason"], flush=True)
    document["layers"] = {
        name: kept[name] | {"class": kind, "flash_attention": name in FLASH_ATTENTION, "in_torch": name in IN_TORCH}
        for name, (kind, _) in LAYERS.items()
        if name in kept
    }
    replace_file(TABLE, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
