"""What readings cost a training: `python -m benchmarks.probe_cost [--output FILE]`.

Processor time, on one thread, of a training step and of a reading of all heads by a Probe of two sequences, the median
of five each after a first, and the share of the training's time that a reading every 100 steps takes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from itertools import count
from typing import Any

import torch

from benchmarks.cases import seconds, write_table
from benchmarks.compiled_training import CASES
from statesize.integrations.probe import Probe, Probing
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.tasks import MQAR
from statesize.lab.training import TrainingConfig
from statesize.lab.training.step import new_state, train_step

EVERY, ROUNDS, SEQUENCES = 100, 5, 2


def run(mixer: str, width: int, length: int) -> dict[str, Any]:
    """One row: two layers, 32 sequences per step."""
    task = MQAR(pairs=8, length=length, vocabulary_size=64)
    shape = ModelConfig(
        mixer=mixer, vocabulary_size=64, width=width, heads=width // 16, layers=2, key_size=16, mlp_factor=2
    )
    config = TrainingConfig(steps=1000, batch_size=32, rate=3e-3)
    state = new_state(LanguageModel(shape, torch.Generator().manual_seed(0)), task, config)
    texts, _ = task.sample(SEQUENCES, torch.Generator().manual_seed(1))
    probing = Probing(Probe(texts, every=EVERY, share=math.inf))
    number = count(1)
    calls: list[Callable[[], object]] = [
        lambda: train_step(state, task, config, next(number)),
        lambda: probing.step(state.model, EVERY),
    ]
    for call in calls:
        call()
    step, reading = (statistics.median(seconds(call) for _ in range(ROUNDS)) for call in calls)
    row = {"mixer": mixer, "width": width, "length": length, "step_seconds": step, "reading_seconds": reading}
    return row | {"share": reading / (EVERY * step)}


def main(arguments: list[str] | None = None) -> int:
    """Prints the table."""
    line = (
        "{mixer:8} width {width}, L={length:<4} {step_seconds:.3f} s per step, {reading_seconds:.3f} s per reading: "
        "{share:.1%}"
    )
    return write_table((run(*case) for case in CASES), line, __doc__, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
