"""The effective state-size as a metric of torchmetrics."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from statesize.adapters import Checking
from statesize.ess import utilisation
from statesize.profiling.measuring import captured_mixers, measure_captured
from statesize.results.sampling import Sample, draw, estimate

# What a utilisation is a share of.
_OF = ("state", "ceiling")


class StateSizeMetric(Metric):
    """Entropy-ESS and utilisation of a model over the batches that it is given.

    Each update measures one or more sequences; merged over batches and processes, every sequence has the same weight.
    The same heads are measured in every process, so with a part of them, too, the result is that of one process.

    Args:
        positions: Positions that are measured of each sequence, evenly spread; None for all.
        channels: Heads or channels that are measured of each mixer, at most; None for all.
        seed: Of their choice.

    Example:
        >>> from statesize import zoo
        >>> metric = StateSizeMetric(positions=4)
        >>> metric.update(zoo.load("gla")[0], torch.tensor([[5, 6, 7, 8, 9, 10]]))
        >>> sorted(metric.compute())
        ['average_ess', 'ceiling_utilisation', 'state_utilisation', 'total_ess']
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, positions: int | None = 32, channels: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.positions, self.channels, self.seed = positions, channels, seed
        self._checking = Checking("none")
        for name in ("total", "width", "sequences", *(f"{of}_{what}" for of in _OF for what in ("shares", "width"))):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, model: nn.Module, input_ids: Tensor) -> None:
        """Measure a batch.

        Errors are those of `statesize.capture` and `statesize.measure`.

        Args:
            model: The model; it is left as it was.
            input_ids: Token ids, (S, L), without padding.
        """
        for item in captured_mixers(model, input_ids, None, self._checking.next(model)):
            sample = draw(item.units, self.channels or item.units, self.seed, item.name)
            nothing: dict[str, Any] = {"tolerances": (), "relative_tolerances": ()}
            (found,) = measure_captured(item, sample.units, outputs=("entropy",), positions=self.positions, **nothing)
            entropy = cast("Tensor", found.entropy)
            channels = item.units * item.multiplicity
            self._add("total", channels * _sum(entropy, sample))
            self._add("width", channels * len(input_ids))
            share = _sum(utilisation(entropy, found.ceiling, found.binds), sample)
            if math.isfinite(share):
                of = "ceiling" if torch.equal(found.state_size, found.positions) else "state"
                self._add(f"{of}_shares", channels * share)
                self._add(f"{of}_width", channels * len(input_ids))
        self._add("sequences", len(input_ids))

    def compute(self) -> dict[str, Tensor]:
        """The result over all batches.

        Returns:
            average_ess per channel, total_ess over all channels, state_utilisation and ceiling_utilisation; means over
            sequences, NaN without any.
        """
        return {
            "average_ess": self._of("total") / self._of("width"),
            "total_ess": self._of("total") / self._of("sequences"),
            **{f"{of}_utilisation": self._of(f"{of}_shares") / self._of(f"{of}_width") for of in _OF},
        }

    def _of(self, name: str) -> Tensor:
        return cast("Tensor", getattr(self, name))

    def _add(self, name: str, value: float) -> None:
        setattr(self, name, self._of(name) + value)


def _sum(values: Tensor, sample: Sample) -> float:
    """Means over positions and all heads, summed over sequences, from (sequences, measured heads, positions)."""
    return sum(estimate(means, sample).mean for means in values.nanmean(-1).numpy())
