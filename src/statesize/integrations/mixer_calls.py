"""The mixers of a model while a loss is computed: their operators, which are part of the loss's graph."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from statesize.adapters.kernels import scans
from statesize.adapters.selection import find_mixers
from statesize.adapters.watching.observation import Frame, Observation, Running
from statesize.errors import InputError
from statesize.operators import Operator


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """One call of a mixer with a method `operator`.

    Attributes:
        module: The mixer.
        hidden: What its forward received first, (S, L, …), in the graph.
    """

    module: nn.Module
    hidden: Tensor

    def sampled(self, sequences: int, units: int, generator: torch.Generator) -> Operator:
        """T of some sequences and units, differentiable in the model's parameters.

        Args:
            sequences: At most so many sequences.
            units: At most so many heads or channels.
            generator: Draws them without replacement.

        Returns:
            An operator of batch shape (sequences, units).

        Raises:
            InputError: The mixer's method returned something else than such an operator.
        """
        hidden = self.hidden[drawn(len(self.hidden), sequences, generator).to(self.hidden.device)]
        operator: object = cast("Callable[[Tensor], object]", self.module.operator)(hidden)
        if not isinstance(operator, Operator) or len(operator.batch_shape) != 2:
            raise InputError(
                f"{type(self.module).__name__}.operator(hidden) did not return a statesize Operator of batch shape "
                "(sequence, head)"
            )
        return operator[:, drawn(operator.batch_shape[1], units, generator).to(operator.device)]


@dataclass(frozen=True, eq=False)
class KernelCall:
    """One call of a kernel of transformers.

    Attributes:
        observation: What was seen.
    """

    observation: Observation

    def sampled(self, sequences: int, units: int, generator: torch.Generator) -> Operator:
        """T of some sequences and units, differentiable in the model's parameters.

        Args:
            sequences: At most so many sequences.
            units: At most so many heads or channels.
            generator: Draws them without replacement.

        Returns:
            An operator of batch shape (sequences, units), float64.
        """
        count, width = self.observation.batch_shape
        chosen = drawn(count, sequences, generator).to(self.observation.values.device)
        return self.observation.operator(drawn(width, units, generator))[chosen]


MixerCall: TypeAlias = ModuleCall | KernelCall
"""One call of a mixer, with a method `sampled`."""


@contextmanager
def mixer_calls(model: nn.Module) -> Generator[list[MixerCall]]:
    """Keep what a model's mixers are called with while this is open, as far as gradients are recorded.

    Known are modules with a method `operator(hidden)`, and the scans of transformers: Mamba, Mamba-2 and the delta
    rules, which run in pure torch meanwhile. Attention has no state of a fixed size and is not kept.

    Args:
        model: Any module; its forward, or any of its parts', may be called several times.

    Yields:
        The calls so far, in their order; it may be cleared.

    Example:
        >>> from statesize.lab.mixers import LanguageModel, ModelConfig
        >>> model = LanguageModel(ModelConfig(mixer="gla", vocabulary_size=10, layers=2))
        >>> with mixer_calls(model) as calls:
        ...     logits = model(torch.zeros(2, 5, dtype=torch.long))
        >>> calls[0].sampled(1, 2, torch.Generator()).batch_shape
        torch.Size([1, 2])
    """
    calls: list[MixerCall] = []
    # Kernels are told the innermost module that runs; here it names the model in messages and no more.
    running = Running(0, [Frame(type(model).__name__, model, (), {})])

    def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden: object = args[0] if args else next(iter(kwargs.values()), None)
        if torch.is_grad_enabled() and isinstance(hidden, Tensor):
            calls.append(ModuleCall(module, hidden))

    def observed(make: Callable[[], Observation], product: object = None) -> None:
        del product
        if torch.is_grad_enabled():
            calls.append(KernelCall(make()))

    with ExitStack() as hooks:
        for mixer in find_mixers(model).values():
            hooks.callback(mixer.register_forward_pre_hook(called, with_kwargs=True).remove)
        hooks.enter_context(scans.observing(model, running, observed))
        yield calls


def drawn(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Different numbers below `count`, (min(wanted, count),) int64, in no order."""
    return torch.randperm(count, generator=generator)[:wanted]
