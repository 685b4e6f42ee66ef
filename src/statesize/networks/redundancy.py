"""Redundancy: the memory that single layers need, compared with that of the whole network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from statesize.adapters.build import Captured
from statesize.adapters.forward import Forward, Inputs
from statesize.adapters.models.quantised import measurable
from statesize.adapters.select import lost_mixers
from statesize.measurement.measurement import Measurement, measure
from statesize.models.capture import capture
from statesize.models.load import given_sequence
from statesize.networks.network import NetworkEss
from statesize.operators import Convolution, Operator
from statesize.report.redundancy import MixerNeeds, Redundancy


def redundancy(
    model: nn.Module | str, input_ids: Inputs | str | Path, network: NetworkEss, name: str | None = None
) -> Redundancy:
    """Compare the memory that each layer needs with that of the whole network, at the same cuts of the same text.

    Layers may store what other layers store as well. The redundancy says how often: it is the sum of the entropy-ESS of
    all layers, divided by that of the network. It is meaningful only if the text is long enough to fill all states.

    Args:
        model: The measured model, or its name.
        input_ids: The measured text, as for `network_ess`.
        network: The result of `network_ess` for them.
        name: Name of the model in charts; None takes the argument, or the name of its class.

    Returns:
        A Redundancy.

    Raises:
        ModelError: As for `statesize.capture`, if no layer can be measured.

    Example:
        >>> import statesize as ss, torch
        >>> from transformers import MambaConfig, MambaForCausalLM
        >>> model = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=2))
        >>> ids = torch.arange(12)[None]
        >>> found = ss.networks.redundancy(model, ids, ss.network_ess(model, ids, positions=[2], method="dense"))
        >>> [mixer.kind for mixer in found.mixers], found.stored > found.dimension
        (['short convolution', 'mamba', 'short convolution', 'mamba'], True)
    """
    name = name or (model if isinstance(model, str) else type(model).__name__)
    model, input_ids = given_sequence(model, input_ids)
    positions = tuple(cast("list[int]", network.positions.tolist()))
    captured = capture(model, input_ids, short_convolutions=True)
    forward = Forward.of(measurable(model), input_ids)
    convolutions = [
        _convolution(name, part, forward.length, positions)
        for name, part in forward.parts
        if type(part).__name__ == "ShortConvolution" and cast("Any", part).size > 1
    ]
    mixers = [_mixer(item, positions, convolutions) for item in captured]
    return Redundancy(
        model=name,
        length=forward.length,
        positions=positions,
        dimension=tuple(cast("list[int]", network.dimension.tolist())),
        whole=tuple(cast("list[float]", network.entropy.tolist())),
        interval=tuple((low, high) for low, high in cast("list[tuple[float, float]]", network.interval.tolist())),
        mixers=(*mixers, *convolutions),
        skipped=lost_mixers(captured.skipped, [mixer.name for mixer in mixers]),
    )


def _mixer(item: Captured, positions: tuple[int, ...], convolutions: Sequence[MixerNeeds]) -> MixerNeeds:
    """A mixer without its convolutions; a cache that several mixers share counts for the last of them."""
    measurement = single = _measured(item.operator, positions)
    sizes, whole = item.operator.state_size(), item.by_group() or item
    if whole is not item:
        measurement = _measured(whole.operator, positions)
    channels = 0 if item.cache else whole.multiplicity
    convolution_bytes = sum(part.state_bytes for part in convolutions if part.name.startswith(f"{item.name}."))
    stored = _summed(whole.bounded(measurement.state_size).expand(whole.units, -1), channels)
    return MixerNeeds(
        name=item.name,
        kind=item.kind,
        state_bytes=math.nan if item.state_bytes is None else item.state_bytes - convolution_bytes,
        stored=stored if item.state_bytes is not None else (math.nan,) * len(stored),
        needed=_summed(cast("Tensor", measurement.entropy)[0], channels),
        alone=_summed(cast("Tensor", single.entropy)[0], item.multiplicity),
        grows=bool(sizes[-1] > sizes[len(sizes) // 2]),
    )


def _convolution(name: str, module: Any, length: int, positions: tuple[int, ...]) -> MixerNeeds:
    """The short convolution before a mixer of this package; its cache has one input less than taps."""
    measurement = _measured(Convolution(module.weight.detach().flip(-1)[None], length), positions)
    stored = _summed(measurement.state_size.expand(len(module.weight), -1), 1)
    needed = _summed(cast("Tensor", measurement.entropy)[0], 1)
    size = (module.size - 1) * module.weight.shape[0] * module.weight.element_size()
    return MixerNeeds(name, "short convolution", size, stored, needed, needed)


def _measured(operator: Operator, positions: tuple[int, ...]) -> Measurement:
    return measure(operator, (), (), outputs=("entropy",), positions=positions)


def _summed(values: Tensor, channels: int) -> tuple[float, ...]:
    """TSS or ESS at each position, (unit, P), summed over units with `channels` channels each."""
    return tuple(cast("list[float]", (values.double().sum(0) * channels).tolist()))
