"""What the comparison with the unaltered model costs: `python -m benchmarks.checks [--rounds 5] [--output FILE]`.

Profiles and captures with all references, and with none; wall time on all threads, medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import statesize as ss
from benchmarks.cases import document
from statesize.adapters import CheckPolicy, Checks
from statesize.io.files import replace_file


def llama() -> torch.nn.Module:
    """A Llama of four layers with eight heads and random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8192, hidden_size=512, intermediate_size=1376, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


CASES: dict[str, tuple[Callable[[], torch.nn.Module], int, int]] = {
    "Llama, 4 layers of 8 heads": (llama, 2, 512),
    "bundled gla": (lambda: ss.lab.zoo.load("gla")[0], 4, 256),
}


def seconds(call: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def unchecked(model: torch.nn.Module, ids: torch.Tensor) -> object:
    """A profile without any reference."""
    with mock.patch.object(CheckPolicy, "for_run", return_value="none"):
        return ss.profile(model, ids, relative_tolerances=())


def compare(name: str, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    make, sequences, length = CASES[name]
    model = make()
    ids = torch.randint(3, 1000, (sequences, length), generator=torch.Generator().manual_seed(0))

    def captured(checks: Checks) -> float:
        return seconds(lambda: list(ss.capture(model, ids[:1], checks=checks)))

    unchecked(model, ids)
    profiles = [
        (seconds(lambda: ss.profile(model, ids, relative_tolerances=())), seconds(lambda: unchecked(model, ids)))
        for _ in range(rounds)
    ]
    captures = [(captured("all"), captured("read"), captured("none")) for _ in range(rounds)]
    with_checks, without = (statistics.median(times) for times in zip(*profiles, strict=True))
    every, read, none = (statistics.median(times) for times in zip(*captures, strict=True))
    return {
        "model": name, "sequences": sequences, "length": length, "profile": with_checks, "profile_unchecked": without,
        "capture": every, "capture_read": read, "capture_unchecked": none,
    }  # fmt: skip


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("model                        tokens   profile  unchecked  ratio   capture: all   read   none (ms)")
    for name in CASES:
        rows.append(row := compare(name, asked.rounds))
        ratio = row["profile"] / row["profile_unchecked"]
        captures = "".join(f"{row[key] * 1e3:7.0f}" for key in ("capture", "capture_read", "capture_unchecked"))
        print(
            f"{name:28} {row['sequences']} x {row['length']}  {row['profile']:6.2f} s   "
            f"{row['profile_unchecked']:6.2f} s  {ratio:.3f}       {captures}",
            flush=True,
        )
    if asked.output:
        replace_file(asked.output, (json.dumps(document(rows), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
