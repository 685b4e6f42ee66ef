"""What training gains where torch compiles the model: `python -m benchmarks.compiled_training [--output FILE]`.

Each row has a process of its own, on one thread: processor time of steps as they are and of compiled ones, in turns,
the median of five ratios; and what the first compiled step takes, with nothing in torch's cache and in another process
with what the first left there.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.cases import child_process, seconds, write_table
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.tasks import MQAR
from statesize.lab.training import TrainingConfig
from statesize.lab.training.checkpoint import TrainingState
from statesize.lab.training.step import new_state, train_step

CASES = (
    ("sa", 64, 128), ("la", 64, 128), ("gla", 64, 128), ("gla", 32, 32), ("gla-s6", 64, 128),
    ("s4d", 64, 128),
)  # fmt: skip
"""Mixer, width and length; two layers, 32 sequences."""
ROUNDS, STEPS = 5, 8


def run(mixer: str, width: int, length: int, cache: str) -> dict[str, Any]:
    """One row; `cache` is where torch keeps what it compiles."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    torch.set_num_threads(1)
    task = MQAR(pairs=8, length=length, vocabulary_size=64)
    shape = ModelConfig(
        mixer=mixer, vocabulary_size=64, width=width, heads=width // 16, layers=2, key_size=16, mlp_factor=2
    )
    plain = TrainingConfig(steps=1000, batch_size=32, rate=3e-3)
    model = LanguageModel(shape, torch.Generator().manual_seed(0))
    compiled = dataclasses.replace(plain, compiled=True)
    states = [(new_state(copy.deepcopy(model), task, config), config) for config in (plain, compiled)]
    started = time.perf_counter()
    losses = [[train_step(state, task, config, 1).loss] for state, config in states[::-1]][::-1]
    first = time.perf_counter() - started

    def steps(state: TrainingState, config: TrainingConfig, into: list[float]) -> None:
        begun = state.progress.step
        into += [train_step(state, task, config, begun + step).loss for step in range(1, STEPS + 1)]

    calls = [partial(steps, *one, into) for one, into in zip(states, losses, strict=True)]
    times = [[seconds(call) / STEPS for call in calls] for _ in range(ROUNDS)]
    return {
        "mixer": mixer, "width": width, "length": length, "first_seconds": first,
        "plain_seconds": statistics.median(one for one, _ in times),
        "compiled_seconds": statistics.median(other for _, other in times),
        "ratio": statistics.median(one / other for one, other in times),
        "difference": max(abs(one - other) for one, other in zip(*losses, strict=True)),
    }  # fmt: skip


def rows() -> Iterator[dict[str, Any]]:
    """All rows, each of the second of two processes, and what the first step of either took."""
    for case in CASES:
        with tempfile.TemporaryDirectory() as cache:
            found: list[dict[str, Any]] = []
            for _ in range(2):
                with child_process() as pool:
                    found.append(pool.submit(run, *case, cache).result())
        yield found[1] | {"first_seconds": found[0]["first_seconds"], "again_seconds": found[1]["first_seconds"]}


def main(arguments: list[str] | None = None) -> int:
    """Prints the table."""
    line = (
        "{mixer:15} width {width}, L={length:<4} {plain_seconds:.4f} s per step, compiled {compiled_seconds:.4f}: "
        "{ratio:.2f}×; first step {first_seconds:.0f} s, in later runs {again_seconds:.0f} s"
    )
    return write_table(rows(), line, __doc__, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
