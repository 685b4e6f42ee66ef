"""What layers need one by one, beside what the whole network needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from statesize.adapters.capture import capture
from statesize.adapters.captured import Captured
from statesize.adapters.forward import Forward
from statesize.adapters.models.inputs import Inputs, measurable
from statesize.adapters.models.wrapped import named_parts
from statesize.measurement.measurement import Measurement, measure
from statesize.network.network import NetworkEss
from statesize.operators import Convolution, Operator
from statesize.report.redundancy import MixerNeeds, Redundancy

if TYPE_CHECKING:
    pass


def redundancy(model: nn.Module, input_ids: Inputs, network: NetworkEss, name: str | None = None) -> Redundancy:
    """Put what each layer needs beside what the whole network needs, at the same cuts of the same text.

    Layers repeat what others keep. The number says how often: the sum of what the layers need, each alone, divided by
    what the network needs. It has a meaning only where the text is long enough to fill all states.

    Args:
        model: The model that was measured.
        input_ids: The text that was measured.
        network: What `network_ess` found of them.
        name: What charts call the model; None takes the name of its class.

    Returns:
        A Redundancy.

    Raises:
        ModelError: As for `statesize.capture`, where no layer can be measured.

    Example:
        >>> import statesize as ss, torch
        >>> model, _ = ss.lab.zoo.load("recall-gla")
        >>> ids = torch.arange(12)[None]
        >>> found = ss.network.redundancy(model, ids, ss.network_ess(model, ids, positions=[2], method="dense"))
        >>> [mixer.kind for mixer in found.mixers], found.stored > found.dimension
        (['gla', 'gla', 'short convolution', 'short convolution'], True)
    """
    positions = tuple(cast("list[int]", network.positions.tolist()))
    captured = capture(model, input_ids, short_convolutions=True)
    length, parts = Forward.of(measurable(model), input_ids).length, named_parts(measurable(model))
    convolutions = [
        _convolution(name, part, length, positions)
        for name, part in parts
        if type(part).__name__ == "ShortConvolution" and cast("Any", part).size > 1
    ]
    needs = [*(_needs(item, positions, convolutions) for item in captured), *convolutions]
    return Redundancy(
        model=name or type(model).__name__,
        positions=positions,
        dimension=tuple(cast("list[int]", network.dimension.tolist())),
        whole=tuple(cast("list[float]", network.entropy.tolist())),
        interval=tuple((low, high) for low, high in cast("list[tuple[float, float]]", network.interval.tolist())),
        mixers=tuple(needs),
        skipped=captured.skipped,
    )


def _needs(item: Captured, positions: tuple[int, ...], convolutions: Sequence[MixerNeeds]) -> MixerNeeds:
    """A mixer without its convolutions; what it shares with others is counted where the last of them is."""
    operator = item.operator
    found = alone = _measured(operator, positions)
    channels, grouped = item.multiplicity, item.by_group()
    if grouped is not None:
        found, channels = _measured(grouped.operator, positions), grouped.multiplicity
    return MixerNeeds(
        name=item.name,
        kind=item.kind,
        state_bytes=item.state_bytes
        - sum(own.state_bytes for own in convolutions if own.name.startswith(f"{item.name}.")),
        stored=_stored(found, 0 if item.cache else channels),
        needed=_needed(found, 0 if item.cache else channels),
        alone=_needed(alone, item.multiplicity),
    )


def _convolution(name: str, module: Any, length: int, positions: tuple[int, ...]) -> MixerNeeds:
    """The short convolution before a mixer of this package, whose cache holds one input less than it has taps."""
    found = _measured(Convolution(module.weight.detach().flip(-1)[None], length), positions)
    needed, size = _needed(found, 1), (module.size - 1) * module.weight.shape[0] * module.weight.element_size()
    return MixerNeeds(name, "short convolution", size, _stored(found, 1), needed, needed)


def _measured(operator: Operator, positions: tuple[int, ...]) -> Measurement:
    return measure(operator, (), (), outputs=("entropy",), positions=positions)


def _stored(found: Measurement, channels: int) -> tuple[float, ...]:
    """TSS over so many channels of each unit, (1, units, P)."""
    units = cast("Tensor", found.entropy).shape[1]
    return tuple(float(size) * channels * units for size in found.state_size)


def _needed(found: Measurement, channels: int) -> tuple[float, ...]:
    """Entropy-ESS over so many channels of each unit, (1, units, P)."""
    sums = cast("Tensor", found.entropy)[0].sum(0) * channels
    return tuple(cast("list[float]", sums.tolist()))
