"""How long a grid will take, from the size of its runs and the speed of this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from statesize.io.steps import Steps
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.studies.grid.grid import TrainingRun
from statesize.lab.tasks.mqar import MQAR
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.loop import train_in_memory
from statesize.parallel.threads import one_torch_thread

# Entries of hidden layers cost as much as this many multiplications: small layers are bound by memory, not arithmetic.
_ENTRY = 60
# What a step costs besides, however small its tensors are: some hundred calls of torch.
_CALLS = 4e7
# What an operator of n states costs at a position, in n³.
_CUBE = 37
# Mixers that keep all they have seen.
_CACHES = frozenset({"sa", "hyena", "attention", "sliding"})
# Value channels, in units of the width, of mixers with an operator for each channel; the others have one a head.
_CHANNELS = {"s6": 1, "s4d": 1, "mamba": 2}
# States of a head where they are not key_size.
_FEATURES: dict[str, Callable[[int], int]] = {"based": lambda n: 1 + n + n**2, "hedgehog": lambda n: 2 * n}
# Positions of a chunk of the linear mixers.
_CHUNK = 32


def work(run: TrainingRun) -> float:
    """The size of a run, in multiplications and what takes as long: a number in proportion to its seconds."""
    measurements = 1 + math.ceil(run.training.steps / run.measuring.every)
    evaluation, others = (
        0.0 if task is None else task.held_out_sequences * task.length * _token(run)
        for task in (run.task, run.evaluation)
    )
    training = run.training.steps * _step(run) + measurements * (evaluation + others + _measurement(run))
    plan = run.distillation
    if plan is None:
        return training
    # Students count as large as their teacher, which runs in both steps; the student's operators, layers and whole
    # model run back and forth.
    steps = plan.steps * (11 * run.task.length * plan.batch_size * _token(run) + 3 * _CALLS)
    return training + plan.students * (steps + 6 * evaluation + _measurement(run))


def _measurement(run: TrainingRun) -> float:
    """Work of measuring the ESS of all mixers, without softmax attention and long convolutions."""
    model, length, total = run.model, run.task.length, 0
    for mixer in map(model.mixer_of, range(model.layers)):
        if mixer not in _CACHES:
            states = _FEATURES.get(mixer, lambda keys: keys)(model.key_size)
            total += (_CHANNELS.get(mixer, 0) * model.width or model.heads) * min(states, length) ** 3
    return _CUBE * total * run.measuring.sequences * length


def _step(run: TrainingRun) -> float:
    """Work of one step of training."""
    tokens = run.task.length * run.training.batch_size
    # A backward pass costs as much as two forward ones.
    return run.training.accumulation * (3 * tokens * _token(run) + _CALLS)


def _token(run: TrainingRun) -> float:
    """Work of a forward pass for one token."""
    model = run.model
    layers = sum(_layer(model, model.mixer_of(layer), run.task.length) for layer in range(model.layers))
    return layers + (model.width + _ENTRY) * model.vocabulary_size


def _layer(model: ModelConfig, mixer: str, length: int) -> float:
    """Work of one layer for one token."""
    mlp, keys = model.mlp_factor * model.width, model.heads * model.key_size
    inputs = 2 * keys + model.width
    products = model.width * (inputs + model.width + 3 * mlp)
    seen = length if mixer in _CACHES else min(_CHUNK, length)
    mixing = seen * (keys + model.width + _ENTRY * model.heads)
    gates = 0 if mixer in {"sa", "la", "nla", "attention", "sliding"} else 4 * keys
    return products + mixing + _ENTRY * (4 * inputs + 6 * model.width + 3 * mlp + gates)


def predicted_seconds(runs: Sequence[TrainingRun], workers: int) -> float:
    """About how many seconds runs take with `workers` at once, from a few steps of a small one on this machine."""
    task = MQAR(pairs=8, length=64, vocabulary_size=64)
    shape = ModelConfig(mixer="gla", vocabulary_size=64, width=32, heads=2, layers=2, key_size=8, mlp_factor=2)
    run = TrainingRun(shape, task, TrainingConfig(steps=8, batch_size=32))
    total = Steps({"runs": sum(map(work, runs))})
    with one_torch_thread():
        model = LanguageModel(shape, torch.Generator().manual_seed(0))
        steps = train_in_memory(model, task, run.training)
        for _ in range(3):
            next(steps)
        # Processor time, which other processes do not change.
        started = time.thread_time()
        cost = sum(_step(run) for _ in steps)
        total.took("runs", time.thread_time() - started, cost)
    return total.seconds / max(workers, 1)
