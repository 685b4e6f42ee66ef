"""Smaller states of delta rules: `python -m benchmarks.compression.delta_rules FOLDER … [--output FILE]`.

Each FOLDER holds a trained model with layers of "deltanet" or "gated-deltanet", such as `best` of a run of
`benchmarks.text_series`. All heads are cut to equal sizes in four orthonormal bases: eigenvectors of what is held (C),
of what reads (W), of both, which `statesize.compress` takes, and channels. Extra bits per byte on held-out documents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

import statesize as ss
from benchmarks.compression.comparing import texts
from benchmarks.compression.folders import Row, measure_folders
from statesize.lab.compression.proposals import measure_gramians
from statesize.lab.compression.shrinking import smaller_model
from statesize.lab.mixers.model import LanguageModel
from statesize.reduction.bases import KeptBasis, OrthonormalBasis, StateCut
from statesize.reduction.compress import extra_bits
from statesize.reduction.windows import BATCH, ratio_of, score, windows

SHARES = (0.75, 0.5, 0.25)
_linalg = cast("Any", torch.linalg)


def _channels(reading: Tensor, state: Tensor) -> Tensor:
    return torch.eye(len(state), dtype=state.dtype)[:, list(KeptBasis.of(reading, state).order)]


# Orthonormal vectors (n, n) of W and C, the first of which are kept.
BASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "W and C": lambda reading, state: OrthonormalBasis.of(reading, state).vectors,
    "C": lambda _, state: _linalg.eigh(state)[1].flip(-1),
    "W": lambda reading, _: _linalg.eigh(reading)[1].flip(-1),
    "channels": _channels,
}


@torch.no_grad()
def rows(folder: str) -> list[Row]:
    """One model: what each basis costs at each share."""
    model, tokenizer = cast("tuple[LanguageModel, Any]", ss.load(folder))
    calibration, _, held_out = (windows(text, tokenizer, 256) for text in texts())
    gramians = measure_gramians(model, torch.split(calibration.inputs, BATCH))
    before = score(model, held_out.inputs, held_out.targets)
    extra: dict[str, dict[str, list[float]]] = {}
    for name, basis in BASES.items():
        found = {
            layer: [basis(*pair) for pair in zip(own.reading, own.state, strict=True)]
            for layer, own in gramians.items()
        }
        for share in SHARES:
            states = round(share * model.config.key_size)
            cuts = {
                layer: [StateCut(own[:, :states], own[:, :states], ()) for own in bases]
                for layer, bases in found.items()
            }
            cut = smaller_model(model, cuts)
            cost = extra_bits(score(cut, held_out.inputs, held_out.targets), before, held_out)
            extra.setdefault(name, {})[f"{share:.0%}"] = [cost.value, cost.low, cost.high]
    bits = ratio_of(before.bits(held_out), held_out.sizes).value
    return [{"model": model.config.mixer, "bits_per_byte": bits, "documents": len(held_out.sizes), "extra": extra}]


if __name__ == "__main__":
    measure_folders(__doc__, rows)
