"""Penalties on the operators of a model's mixers, part of the graph of a loss."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.check import all_finite, require_kind, require_real
from statesize.errors import InputError, ModelError
from statesize.lab.mixers.la import LinearAttention
from statesize.metrics import differentiable_entropy
from statesize.operators import Operator, Recurrence

_SEQUENCES, _UNITS, _POSITIONS = 2, 1, 2
"""Samples of each layer and step: sequences of the batch, heads or channels, and cuts."""


@dataclass(frozen=True, eq=False)
class MixerCall:
    """One call of a mixer with a method `operator`.

    Attributes:
        module: The mixer.
        hidden: The first argument of its forward, (S, L, …), in the graph.
    """

    module: Any
    hidden: Tensor

    def sampled(self, sequences: int, units: int, generator: torch.Generator) -> Operator:
        """T of some sequences and units, drawn without replacement, differentiable in the model's parameters.

        Args:
            sequences: Largest number of sequences.
            units: Largest number of heads or channels.
            generator: Draws them.

        Returns:
            An operator of batch shape (sequences, units).

        Raises:
            InputError: The mixer's method did not return such an operator.
        """
        hidden = self.hidden[_sample(len(self.hidden), sequences, generator).to(self.hidden.device)]
        operator: object = self.module.operator(hidden)
        if not isinstance(operator, Operator) or len(operator.batch_shape) != 2:
            raise InputError(
                f"{type(self.module).__name__}.operator(hidden) did not return a statesize Operator of batch shape "
                "(sequence, head)"
            )
        return operator[:, _sample(operator.batch_shape[1], units, generator).to(operator.device)]


@contextmanager
def mixer_calls(model: nn.Module) -> Generator[list[MixerCall]]:
    """Record the calls of modules with a method `operator(hidden)` for the time of a block, where gradients are.

    Args:
        model: Any module; its forward, or that of its parts, may be called several times.

    Yields:
        The calls so far, in their order; the list may be cleared.

    Example:
        >>> from statesize.lab.mixers import LanguageModel, ModelConfig
        >>> model = LanguageModel(ModelConfig("gla", 16, width=8, heads=2), torch.Generator().manual_seed(0))
        >>> with mixer_calls(model) as calls:
        ...     logits = model(torch.zeros(2, 5, dtype=torch.long))
        >>> calls[0].sampled(1, 2, torch.Generator()).batch_shape
        torch.Size([1, 2])
    """
    require_kind("model", model, nn.Module, "a torch module", "Give statesize.load(NAME).model, or another.")
    calls: list[MixerCall] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden: object = args[0] if args else next(iter(kwargs.values()), None)
        if torch.is_grad_enabled() and isinstance(hidden, Tensor):
            calls.append(MixerCall(module, hidden))

    mixers = [module for module in model.modules() if callable(getattr(module, "operator", None))]
    hooks = [module.register_forward_pre_hook(record, with_kwargs=True) for module in mixers]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def identity_distance(recurrence: Recurrence) -> Tensor:
    """The distance of a recurrence from perfect memory: the mean of ‖A_t − I‖_F over its batch and positions.

    The regulariser of Parnichkun et al. 2025 (arXiv 2504.19561), section 4.2; for a diagonal A_t it is ‖1 − a_t‖₂.

    Args:
        recurrence: Any recurrence.

    Returns:
        A scalar in its real dtype, differentiable.

    Raises:
        InputError: The argument is no recurrence, has no batch entry, or A overflows when squared.

    Example:
        >>> vectors = torch.ones(3, 4)
        >>> identity_distance(Recurrence(torch.full((3, 4), 0.5), vectors, vectors))
        tensor(1.)
    """
    require_kind("recurrence", recurrence, Recurrence, "a Recurrence")
    A, states = recurrence.A, recurrence.B.shape[-1]
    if A.dim() == recurrence.B.dim():
        return _average("recurrence", _norm((1 - A).expand(*A.shape[:-1], states), -1))
    return _average("recurrence", _norm(A - torch.eye(states, dtype=A.dtype, device=A.device), -2, -1))


def utilisation_distance(operator: Operator, target: float, positions: Sequence[int]) -> Tensor:
    """The distance of the entropy-ESS from a share of its ceiling: the mean of (ESS_i / ceiling_i − target)².

    It pulls in both directions, for each head and position separately.

    Args:
        operator: Any operator with a fixed state; others cost much more (see `differentiable_entropy`).
        target: Share of the ceiling min(TSS, i, L − i), in 0 … 1.
        positions: The cuts i, among 1 … L − 1.

    Returns:
        A scalar, float64, differentiable.

    Raises:
        InputError: The argument is no operator, has no batch entry or position, or the target is no share.

    Example:
        >>> ones = torch.ones(6, 1)
        >>> utilisation_distance(Recurrence(ones, ones, ones), target=0.5, positions=[3])
        tensor(0.2500, dtype=torch.float64)
    """
    require_kind("operator", operator, Operator, "a statesize Operator")
    share = require_real("target", target, least=0, most=1, advice="It is a share of the ceiling.")
    sizes = operator.state_size()
    cuts = torch.tensor(positions, dtype=torch.int64, device=sizes.device)
    ceiling = torch.minimum(sizes[cuts], torch.minimum(cuts, operator.length - cuts)).clamp(min=1)
    return _average("operator", (differentiable_entropy(operator, list(positions)) / ceiling - share).square())


@dataclass(frozen=True)
class Regularisation:
    """A penalty on the mixers that ran while a loss was computed.

    `identity_distance` averages over all layers, heads and positions of linear attentions, whose decays cost one
    projection, and over sampled sequences and units of other mixers. `utilisation_distance` averages over sampled
    sequences, units and positions at which the state could be full, n ≤ i ≤ L − n. Each layer and step has its own
    sample, so the expected gradient is that over all.

    Attributes:
        identity_weight: λ of the identity distance, about 0.3; 0 leaves it out.
        utilisation_weight: Weight of the utilisation distance; 0 leaves it out.
        target_utilisation: Target of the entropy-ESS as a share of its ceiling.

    Raises:
        InputError: A number is out of range.

    Example:
        >>> from statesize.lab.mixers import LanguageModel, ModelConfig
        >>> model = LanguageModel(ModelConfig("gla", 16, width=8, heads=2), torch.Generator().manual_seed(0))
        >>> with mixer_calls(model) as calls:
        ...     loss = model(torch.arange(80)[None] % 16).square().mean()
        >>> penalty = Regularisation(identity_weight=0.3).penalty(calls, torch.Generator().manual_seed(0))
        >>> (loss + penalty).backward()
    """

    identity_weight: float = 0.0
    utilisation_weight: float = 0.0
    target_utilisation: float = 0.8

    def __post_init__(self) -> None:
        for name in ("identity_weight", "utilisation_weight"):
            require_real(name, getattr(self, name), least=0, plain=True)
        require_real("target_utilisation", self.target_utilisation, least=0, most=1, plain=True)

    def penalty(self, calls: Sequence[MixerCall], generator: torch.Generator) -> Tensor:
        """The term to add: both distances, each averaged over the mixers and weighted.

        Args:
            calls: From `mixer_calls`, of the forward pass that computed the loss.
            generator: Draws the samples; on the CPU.

        Returns:
            A scalar in float32, in the graph of that forward pass.

        Raises:
            ModelError: None of the mixers is a recurrence.
            InputError: An operator is not finite.
        """
        weighted = (self.identity_weight, self._identity), (self.utilisation_weight, self._utilisation)
        # Sampled operators are float64, and mixers of half precision need more for the distances.
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            terms = [weight * _mean([term(call, generator) for call in calls]) for weight, term in weighted if weight]
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def _identity(self, call: MixerCall, generator: torch.Generator) -> Tensor | None:
        if isinstance(call.module, LinearAttention):
            # The logarithm tells more of an a near 1 than a does.
            log_decay = call.module.log_decay(call.hidden)
            log_decay = call.hidden.new_zeros(1) if log_decay is None else log_decay
            return _norm(log_decay.expand(*log_decay.shape[:-1], call.module.key_size).expm1(), -1).mean()
        operator = call.sampled(_SEQUENCES, _UNITS, generator)
        return identity_distance(operator) if isinstance(operator, Recurrence) else None

    def _utilisation(self, call: MixerCall, generator: torch.Generator) -> Tensor | None:
        operator = call.sampled(_SEQUENCES, _UNITS, generator)
        if not isinstance(operator, Recurrence):
            return None
        length, states = operator.length, int(operator.state_size().max())
        # If the state can be full at no position, it can hold most in the middle.
        first, last = min(states, length // 2), max(length - states, (length + 1) // 2)
        positions = first + _sample(last - first + 1, _POSITIONS, generator)
        return utilisation_distance(operator, self.target_utilisation, positions.sort().values.tolist())  # pyright: ignore[reportUnknownArgumentType]


def _sample(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Distinct numbers below `count` in random order, (min(wanted, count),) int64."""
    return torch.randperm(count, generator=generator)[:wanted]


def _mean(distances: Sequence[Tensor | None]) -> Tensor:
    measured = [distance.float() for distance in distances if distance is not None]
    if not measured:
        raise ModelError(
            "model must have a mixer that is a recurrence, got none that statesize knows. Give the layers a method "
            "`operator(hidden)` that returns one."
        )
    return torch.stack(measured).mean()


def _average(name: str, distances: Tensor) -> Tensor:
    if not distances.numel() or not all_finite(distances):
        problem = "none" if not distances.numel() else "numbers that overflow when they are squared"
        raise InputError(f"{name} must have a batch entry and a position, and finite distances, got {problem}.")
    return distances.mean()


def _norm(tensor: Tensor, *dimensions: int) -> Tensor:
    return cast("Tensor", tensor.norm(dim=dimensions))
