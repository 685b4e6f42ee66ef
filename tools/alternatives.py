"""What one would use in place of ESS, measured on a model that is trained again as a run on record was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from statesize.lab.mixers import LanguageModel
from statesize.lab.studies.engine.grid import TrainingRun
from statesize.lab.studies.engine.training import measure_model
from statesize.lab.training import train
from statesize.operators import Recurrence
from statesize.parallel.threads import Work, one_torch_thread
from statesize.profiling.work import captured_mixers

METRIC = "relative_0.01"
"""The ESS that is asked."""


def measuring() -> Work:
    """Make `measured` the work on tasks (name of a run, the run)."""
    return _work


def _work(task: tuple[str, TrainingRun]) -> Iterator[dict[str, float]]:
    yield measured(task[1])


def measured(run: TrainingRun) -> dict[str, float]:
    """Train a model again and measure it, as means over layers, sequences, heads and positions.

    Args:
        run: A run of one mixer.

    Returns:
        Accuracy, ESS and norm at the end, and ESS at initialisation, as the study measures them; the perplexity of the
        rows of |T|; and of recurrences ‖S‖_F² / ‖S‖₂² of the states S, and the decay.
    """
    with one_torch_thread():
        model = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
        first = measure_model(model, run)
        for _ in train(model, run.task, run.training):
            pass
        last = measure_model(model, run)
        with torch.no_grad():
            ids = next(iter(run.task.held_out(run.measuring.sequences)))[0]
            layers = [_of_layer(captured) for captured in captured_mixers(model, ids, "all")]
    of_study = {
        "accuracy": last["accuracy"],
        "ess": last[METRIC],
        "norm": last["norm"],
        "ESS_at_initialisation": first[METRIC],
    }
    return of_study | {name: float(np.mean([layer[name] for layer in layers])) for name in layers[0]}


def _of_layer(captured: Any) -> dict[str, float]:
    operator = captured.operator
    weights = operator.dense().double().abs()
    shares = weights / weights.sum(-1, keepdim=True)
    entropy = {"attention_entropy": float(torch.special.entr(shares).sum(-1).exp().mean())}
    if not isinstance(operator, Recurrence):
        return entropy
    values = captured.values()
    spectra = torch.linalg.svdvals(operator.states(values, range(1, values.shape[-2] + 1)).double())
    return entropy | {
        "stable_rank": float((spectra.square().sum(-1) / spectra[..., 0].square()).mean()),
        "mean_decay": float(operator.A.double().mean()),
    }
