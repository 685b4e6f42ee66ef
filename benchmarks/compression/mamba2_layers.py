"""What tells how much a cut of one layer of a Mamba-2 costs.

`python -m benchmarks.compression.mamba2_layers FOLDER [--output FILE]`, where FOLDER holds a trained Mamba-2 of
transformers, such as that of `benchmarks.architectures`: Spearman's correlation over layers of each predictor with the
nats lost where that layer alone keeps a quarter of its numbers, by balanced truncation.
"""

from __future__ import annotations

from typing import Any, cast

import torch

import statesize as ss
from benchmarks import prose
from benchmarks.compression.comparing import texts
from benchmarks.compression.folders import Row, measure_folders
from benchmarks.compression.heads import spearman
from statesize.adapters.observation import Observation
from statesize.operators import Recurrence
from statesize.reduction.bases import BalancedBasis
from statesize.reduction.hub import bases_of_groups, gramians_of_groups, observe
from statesize.reduction.reducible import smaller_state_space
from statesize.reduction.windows import BATCH, score, windows

_LENGTH, _SEQUENCES = 128, 4


@torch.no_grad()
def rows(folder: str) -> list[Row]:
    """The correlations of one model, and how many layers it has."""
    model, _ = cast("tuple[Any, Any]", ss.load(folder))
    calibration, choice, _ = (windows(text, prose.tokenizer(), _LENGTH) for text in texts())
    bases = bases_of_groups(gramians_of_groups(model, torch.split(calibration.inputs, BATCH)), BalancedBasis)
    quarter = model.config.state_size // 4
    predictors: dict[str, list[float]] = {}

    def look(observation: Observation) -> None:
        if observation.inner:
            return
        operator = cast("Recurrence", observation.operator(slice(None)))
        found: Any = ss.measure(operator, positions=[operator.length // 2], relative_tolerances=(0.01,))
        (basis,) = bases[observation.name]
        own = {
            "entropy-ESS": found.entropy.mean(),
            "relative tolerance-ESS": found.relative_count.double().mean(),
            "Gramian tail": basis.error[quarter],
            "output norm": observation.mixed.square().sum(-1).mean().sqrt(),
            "decay": operator.A.mean(),
            "layer": len(predictors.get("layer", [])),
        }
        for name, value in own.items():
            predictors.setdefault(name, []).append(float(value))

    observe(model, choice.inputs[:_SEQUENCES], look)
    whole = float(score(model, choice.inputs, choice.targets).nats.sum())
    damage: list[float] = []
    for name in bases:
        cut = smaller_state_space(model, bases, model.config.state_size)
        # Where keys write nothing, nothing is read.
        cut.get_submodule(name).key_map[..., quarter:] = 0
        damage.append(float(score(cut, choice.inputs, choice.targets).nats.sum()) - whole)
    told = {name: spearman(values, damage) for name, values in predictors.items()}
    return [{"layers": len(damage), "damage": damage, "rank_correlations": told}]


if __name__ == "__main__":
    measure_folders(__doc__, rows)
