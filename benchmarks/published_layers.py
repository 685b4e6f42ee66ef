"""Do layers as published learn recall as the lean ones do? `python -m benchmarks.published_layers FILE`.

Each mixer learns multi-query associative recall in a model of two layers, and those that lag behind learn it again in
more steps, as their lean ones do. Mixers without short convolution get learned positions. A run that is done is not
done again.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import document
from benchmarks.recorded import Row, finish
from statesize.lab.mixers import MIXERS, LanguageModel, ModelConfig
from statesize.lab.tasks import MQAR
from statesize.lab.training import TrainingConfig
from statesize.lab.training.loop import train_in_memory
from statesize.lab.training.step import DivergenceError, evaluate

LEAN = {
    "attention": "sa",
    "sliding": "sa",
    "based,sliding": "nla",
    "sliding,based": "nla",
    "linear-transformer": "nla",
    "s4d,linear-transformer": "nla",
    "s4d,based": "nla",
    "s4d,hedgehog": "nla",
    "hyena,hedgehog": "nla",
    "gla-full": "gla",
    "deltanet": "la",
    "gated-deltanet": "gla",
    "mamba": "s6",
    "mamba2": "gla-s6",
}
"""Layers as published, and the lean one that each is compared with."""
TASK = MQAR(pairs=6, length=32, vocabulary_size=64, held_out_sequences=256)
SHAPE: dict[str, Any] = {"width": 32, "heads": 2, "layers": 2, "key_size": 8, "mlp_factor": 2, "decay_bias": 0.0}
LAGGING = (
    "mamba", "gla-full", "gated-deltanet", "deltanet", "s4d,hedgehog", "s4d,linear-transformer", "sliding,based",
)  # fmt: skip
SLOW = ("s4d,linear-transformer", "s4d,hedgehog", "hyena,hedgehog", "mamba", "gated-deltanet")
RUNS = (
    (3000, 6e-3, tuple(LEAN)),
    (10_000, 4e-3, LAGGING),
    (20_000, 2e-3, SLOW),
    (20_000, 4e-3, ("mamba",)),
    (20_000, 1e-3, ("hyena,hedgehog",)),
)
"""Steps, learning rate, and layers."""


def main(path: Path) -> None:
    """Do the runs that are not there, and write the document after each."""
    names = (
        {"mixer": mixer, "steps": steps, "rate": rate}
        for steps, rate, several in RUNS
        for mixer in dict.fromkeys([*(LEAN[name] for name in several), *several])
    )
    finish(path, ((name, partial(one_run, **name)) for name in names), with_lean, partial(print, flush=True))


def with_lean(rows: list[Row]) -> Row:
    """The document, with the lean ones of mixers where both have learned."""
    learned = {row["mixer"] for row in rows}
    return document(rows, lean={name: other for name, other in LEAN.items() if {name, other} <= learned})


def one_run(mixer: str, steps: int, rate: float) -> dict[str, Any]:
    """A model, trained: its held-out accuracy, and processor seconds of one step of training."""
    convolved = any(getattr(MIXERS[name], "convolved", False) for name in mixer.split(","))
    positions = 0 if convolved else TASK.length
    shape = ModelConfig(mixer=mixer, vocabulary_size=64, tied=False, positions=positions, window=16, **SHAPE)
    model = LanguageModel(shape, torch.Generator().manual_seed(0))
    config = TrainingConfig(steps=steps, batch_size=32, weight_decay=0.0, rate=rate)
    started = time.process_time()
    # A run that diverges is judged by the weights that it had.
    with suppress(DivergenceError):
        for _ in train_in_memory(model, TASK, config):
            pass
    seconds = (time.process_time() - started) / steps
    accuracy = evaluate(model, TASK, 64)["accuracy"]
    return {"accuracy": round(accuracy, 4), "step_seconds": round(seconds, 4)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
