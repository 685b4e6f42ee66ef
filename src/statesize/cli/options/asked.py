"""What is measured of a model: options that several commands have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from statesize.cli.options.kinds import Count, Seed


def _some(_: object, channels: object) -> None:
    if isinstance(channels, int) and channels < 1:
        raise ValueError('Must be "all" or at least 1.')


@Parameter(name="*")
@dataclass(frozen=True)
class Asked:
    """What is measured.

    Attributes:
        layers: Layers to measure, by name or by index from 0. Default: all.
        positions: Positions to measure in each sequence: all, or this many, evenly spread. Default: all of a sequence
            of up to 16,384 tokens, 32 of a longer one.
        stride: Measure one position in this many.
        past: Measure with at most this many positions of the past.
        future: Measure with at most this many positions of the future.
        channels: Heads or channels to measure in each layer: all, or a number, drawn from all parts of the layer.
            Default: all of them, up to a cost that --plan states.
        seed: Seed of the choice of heads or channels.
        memory: Memory that measuring may use, beside the model and the results, such as 4GB: operators, attention maps
            and spectra. Where one head takes more, the command says how much would do.
        count_accuracy: Allow counts at relative tolerances to be off by up to this fraction (0.02 = 2 %), or by 1.
            0 = exact, which takes longer for attention.
        entropy_accuracy: Relative accuracy of entropies.
    """

    layers: Annotated[list[int | str] | None, Parameter(negative="", consume_multiple=True)] = None
    positions: Annotated[Literal["all"] | int | None, Parameter(validator=_some)] = None
    stride: Count | None = None
    past: Count | None = None
    future: Count | None = None
    channels: Annotated[Literal["all"] | int | None, Parameter(validator=_some)] = None
    seed: Seed = 0
    memory: str = "2GB"
    count_accuracy: Annotated[float, Parameter(validator=validators.Number(gte=0, lt=1))] = 0.02
    entropy_accuracy: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 1e-3
