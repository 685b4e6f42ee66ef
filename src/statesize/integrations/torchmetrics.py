"""The effective state-size as a metric of torchmetrics."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from statesize.adapters import Captured, CheckPolicy
from statesize.measurement.measurement import Measurement
from statesize.measurement.metrics import utilisation
from statesize.measurement.settings import check_settings
from statesize.measurement.statistics import Sample, draw, estimate
from statesize.profiling.measuring import captured_mixers, measure_captured

# What a utilisation is a share of.
_OF = ("state", "ceiling")


class StateSizeMetric(Metric):
    """Entropy-ESS and utilisation of a model over the batches that it is given.

    Each update measures one or more sequences; merged over batches and processes, every sequence has the same weight.
    The same heads are measured in every process, so with a part of them, too, the result is that of one process.

    Args:
        positions: Positions that are measured of each sequence, evenly spread; None for all.
        channels: Heads or channels that are measured of each mixer, at most; None for all.
        seed: Seed of their choice.

    Example:
        >>> from statesize.lab import zoo
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
        self._checking = CheckPolicy("none")
        for name in (
            "total",
            "readouts",
            "width",
            "sequences",
            *(f"{of}_{what}" for of in _OF for what in ("shares", "width")),
        ):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, model: nn.Module, input_ids: Tensor) -> None:
        """Measure a batch.

        Errors are those of `statesize.capture` and `statesize.measure`.

        Args:
            model: The model; it is left as it was.
            input_ids: Token ids, (S, L), without padding.
        """
        for item in captured_mixers(model, input_ids, None, self._checking.for_run(model)):
            found, sample = self._measured(item)
            entropy, channels = cast("Tensor", found.entropy), item.units * item.multiplicity
            readouts = total = channels * _sum(entropy, sample)
            together = item.by_group()
            if together is not None:
                # What several heads read counts once.
                joint, groups = self._measured(together)
                total = together.units * together.multiplicity * _sum(cast("Tensor", joint.entropy), groups)
            self._add("total", total)
            self._add("readouts", readouts)
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
            average_ess per channel, total_ess over all stored channels, state_utilisation and ceiling_utilisation;
            means over sequences, NaN without any.
        """
        return {
            "average_ess": self._of("readouts") / self._of("width"),
            "total_ess": self._of("total") / self._of("sequences"),
            **{f"{of}_utilisation": self._of(f"{of}_shares") / self._of(f"{of}_width") for of in _OF},
        }

    def _measured(self, item: Captured) -> tuple[Measurement, Sample]:
        count = item.units if self.channels is None else self.channels
        sample = draw(item.units, count, self.seed, item.name)
        (found,) = measure_captured(item, sample.units, check_settings((), (), self.positions), ("entropy",))
        return found, sample

    def _of(self, name: str) -> Tensor:
        return cast("Tensor", getattr(self, name))

    def _add(self, name: str, value: float) -> None:
        setattr(self, name, self._of(name) + value)


def _sum(values: Tensor, sample: Sample) -> float:
    """Means over positions and all heads, summed over sequences, from (sequences, measured heads, positions)."""
    return sum(estimate(means, sample).mean for means in values.nanmean(-1).numpy())
