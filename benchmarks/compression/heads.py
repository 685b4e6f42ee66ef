"""What tells, head by head, how much a cut of that head costs: rank correlations with the measured damage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from scipy import stats

from statesize.lab.compression.proposals import cuts_of
from statesize.lab.compression.shrinking import smaller_model
from statesize.lab.mixers.model import LanguageModel
from statesize.measurement.measurement import measure
from statesize.reduction.bases import Basis
from statesize.reduction.windows import TokenWindows, score

_SEQUENCES = 4


@torch.no_grad()
def rank_correlations(
    model: LanguageModel, bases: Mapping[int, Sequence[Basis]], windows: TokenWindows
) -> dict[str, float | None]:
    """Spearman's correlation over heads of each predictor with the nats lost where a head keeps a quarter alone."""
    n, heads = model.config.key_size, sum(map(len, bases.values()))
    quarter = n // 4
    predictors: dict[str, list[float]] = {}
    hidden = model._embed(windows.inputs[:_SEQUENCES], slice(0, windows.inputs.shape[1]))  # pyright: ignore[reportPrivateUsage]
    for layer, block in enumerate(model.blocks):
        normed = block.mixer_norm(hidden)
        operator = block.mixer.operator(normed)
        found: Any = measure(operator, positions=[operator.length // 2], relative_tolerances=(0.01,))
        outputs = block.mixer.mixed_values(normed)
        decays = block.mixer.log_decay(normed)
        own = {
            "entropy-ESS": found.entropy.mean((0, 2)),
            "relative tolerance-ESS": found.relative_count.double().mean((0, 2, 3)),
            "Gramian tail": torch.stack([basis.error[quarter] for basis in bases[layer]]),
            "output norm": outputs.square().sum(-1).mean((0, 2)).sqrt(),
            "decay": torch.ones(block.mixer.heads) if decays is None else decays.exp().mean((0, 2, 3)),
            "layer": torch.full((block.mixer.heads,), float(layer)),
        }
        for name, values in own.items():
            predictors.setdefault(name, []).extend(float(value) for value in values)
        hidden = block(hidden)
    whole = float(score(model, windows.inputs, windows.targets).nats.sum())
    damage: list[float] = []
    for head in range(heads):
        cut = smaller_model(model, cuts_of(bases, [quarter if place == head else n for place in range(heads)]))
        damage.append(float(score(cut, windows.inputs, windows.targets).nats.sum()) - whole)
    return {name: spearman(values, damage) for name, values in predictors.items()}


def spearman(values: Sequence[float], damage: Sequence[float]) -> float | None:
    """Rank correlation; None where all values are the same."""
    return None if np.ptp(values) < 1e-9 else float(cast("Any", stats).spearmanr(values, damage).statistic)
