"""The effective state-size as a metric of torchmetrics."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from statesize.adapters import Captured, Checks
from statesize.adapters.capture import capture_module
from statesize.adapters.models.quantised import measurable
from statesize.adapters.models.sharded import together
from statesize.measurement.measurement import Measurement
from statesize.measurement.metrics import utilisation
from statesize.measurement.settings import COUNTS, VARIANT, Settings, given_settings
from statesize.measurement.statistics import Sample, draw, estimate
from statesize.profiling.work import measure_captured

# The two denominators of a utilisation.
_LIMITS = ("state", "ceiling")


class StateSizeMetric(Metric):
    """Entropy-ESS and utilisation of a model over batches of sequences.

    Each update measures one or more sequences. Over all batches and processes, every sequence has the same weight. All
    processes measure the same heads, so the result is that of one process also if only some heads are measured.

    Args:
        settings: What is measured of each mixer; None takes 32 positions of all heads or channels.

    Example:
        >>> from statesize import Settings
        >>> from transformers import MambaConfig, MambaForCausalLM
        >>> model = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=2))
        >>> metric = StateSizeMetric(Settings(positions=4))
        >>> metric.update(model, torch.tensor([[5, 6, 7, 8, 9, 10]]))
        >>> sorted(metric.compute())
        ['average_ess', 'ceiling_utilisation', 'state_utilisation', 'total_ess']
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self.settings = Settings(positions=32) if settings is None else given_settings(settings)
        self.settings.without("a StateSizeMetric", *COUNTS, *VARIANT)
        self._checks: Checks = "all"
        limits = [f"{limit}_{part}" for limit in _LIMITS for part in ("shares", "width")]
        for name in ("total", "readouts", "width", "sequences", *limits):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, model: nn.Module, input_ids: Tensor) -> None:
        """Measure a batch.

        Errors are those of `statesize.capture` and `statesize.measure`.

        Args:
            model: The model, which is not changed.
            input_ids: Token ids, (S, L), without padding.
        """
        model = measurable(model)
        layers, mixes = self.settings.layers, self.settings.mixes
        with together(model, input_ids, layers, self._checks):
            captured = capture_module(model, input_ids, layers, checks=self._checks, mixes=mixes)
        for item in captured:
            measurement, sample = self._measured(item)
            entropy, channels = cast("Tensor", measurement.entropy), item.units * item.multiplicity
            readouts = total = channels * _sum(entropy, sample)
            grouped = item.by_group()
            if grouped is not None:
                # A state that several heads read counts once.
                joint, groups = self._measured(grouped)
                total = grouped.units * grouped.multiplicity * _sum(cast("Tensor", joint.entropy), groups)
            self._add("total", total)
            self._add("readouts", readouts)
            self._add("width", channels * len(input_ids))
            ceiling = item.bounded(measurement.ceiling).expand(item.units, -1)[sample.units].double().mean(0)
            share = _sum(utilisation(entropy, ceiling, measurement.binds), sample)
            if math.isfinite(share) and item.state_bytes is not None:
                limit = "ceiling" if torch.equal(measurement.state_size, measurement.positions) else "state"
                self._add(f"{limit}_shares", channels * share)
                self._add(f"{limit}_width", channels * len(input_ids))
        self._add("sequences", len(input_ids))
        self._checks = "all" if captured.skipped else "again"

    def compute(self) -> dict[str, Tensor]:
        """The result over all batches.

        Returns:
            average_ess per channel, total_ess over all stored channels, state_utilisation and ceiling_utilisation;
            means over sequences, NaN without any.
        """
        shares = {f"{limit}_utilisation": self._ratio(f"{limit}_shares", f"{limit}_width") for limit in _LIMITS}
        return {
            "average_ess": self._ratio("readouts", "width"),
            "total_ess": self._ratio("total", "sequences"),
            **shares,
        }

    def _measured(self, item: Captured) -> tuple[Measurement, Sample]:
        count = self.settings.channels
        sample = draw(item.units, count if isinstance(count, int) else item.units, self.settings.seed, item.name)
        measurement = measure_captured(item, sample.units, self.settings, ("entropy",))
        return measurement, sample

    def _ratio(self, numerator: str, denominator: str) -> Tensor:
        return getattr(self, numerator) / getattr(self, denominator)

    def _add(self, name: str, value: float) -> None:
        setattr(self, name, getattr(self, name) + value)


def _sum(values: Tensor, sample: Sample) -> float:
    """Means over positions and all heads, summed over sequences, from (sequences, measured heads, positions)."""
    return sum(estimate(means, sample).mean for means in values.nanmean(-1).numpy())
