"""Penalties on the operators of a model's mixers, part of the graph of a loss."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.check import all_finite, require_kind
from statesize.errors import InputError, ModelError
from statesize.lab.mixers.la import LinearAttention
from statesize.operators import Operator, Recurrence

_SEQUENCES, _UNITS = 2, 1
"""Samples of each layer and step: sequences of the batch, heads or channels."""


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
        """T of at most so many sequences and units, drawn without replacement, of batch shape (sequences, units)."""
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
        distances = _norm((1 - A).expand(*A.shape[:-1], states), -1)
    else:
        distances = _norm(A - torch.eye(states, dtype=A.dtype, device=A.device), -2, -1)
    if not distances.numel() or not all_finite(distances):
        problem = "none" if not distances.numel() else "numbers that overflow when they are squared"
        raise InputError(f"recurrence must have a batch entry, and finite distances, got {problem}.")
    return distances.mean()


def identity_penalty(calls: Sequence[MixerCall], generator: torch.Generator) -> Tensor:
    """The mean of `identity_distance` over the mixers that ran while a loss was computed.

    It is that over all heads and positions of linear attentions, whose decays cost one projection, and over sampled
    sequences and units of other mixers, each layer and step with its own sample.

    Args:
        calls: From `mixer_calls`, of the forward pass that computed the loss.
        generator: Draws the samples; on the CPU.

    Returns:
        A scalar in float32, in the graph of that forward pass.

    Raises:
        ModelError: None of the mixers is a recurrence.

    Example:
        >>> from statesize.lab.mixers import LanguageModel, ModelConfig
        >>> model = LanguageModel(ModelConfig("gla", 16, width=8, heads=2), torch.Generator().manual_seed(0))
        >>> with mixer_calls(model) as calls:
        ...     loss = model(torch.arange(80)[None] % 16).square().mean()
        >>> (loss + 0.3 * identity_penalty(calls, torch.Generator().manual_seed(0))).backward()
    """
    # Sampled operators are float64, and mixers of half precision need more for the distances.
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        distances = [_distance(call, generator) for call in calls]
    measured = [distance.float() for distance in distances if distance is not None]
    if not measured:
        raise ModelError(
            "model must have a mixer that is a recurrence, got none that statesize knows. Give the layers a method "
            "`operator(hidden)` that returns one."
        )
    return torch.stack(measured).mean()


def _distance(call: MixerCall, generator: torch.Generator) -> Tensor | None:
    if isinstance(call.module, LinearAttention):
        # The logarithm tells more of an a near 1 than a does.
        log_decay = call.module.log_decay(call.hidden)
        log_decay = call.hidden.new_zeros(1) if log_decay is None else log_decay
        return _norm(log_decay.expand(*log_decay.shape[:-1], call.module.key_size).expm1(), -1).mean()
    operator = call.sampled(_SEQUENCES, _UNITS, generator)
    return identity_distance(operator) if isinstance(operator, Recurrence) else None


def _sample(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Distinct numbers below `count` in random order, (min(wanted, count),) int64."""
    return torch.randperm(count, generator=generator)[:wanted]


def _norm(tensor: Tensor, *dimensions: int) -> Tensor:
    return cast("Tensor", tensor.norm(dim=dimensions))
