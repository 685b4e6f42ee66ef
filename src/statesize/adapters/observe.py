"""One run of a model whose mixers are handed over as they come, for a model that `capture` has checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from torch import nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.checks import Inputs, measurable
from statesize.adapters.sources import observing_all
from statesize.adapters.watching.observation import Observation
from statesize.adapters.watching.running import running_modules


def observe(model: nn.Module, input_ids: Inputs, take: Callable[[Observation], None]) -> None:
    """Run a model once and give each of its mixers' observations to a function; nothing is kept or compared."""
    model = measurable(model)
    forward = Forward.of(model, input_ids)

    def attach(stack: ExitStack) -> None:
        running = stack.enter_context(running_modules(model, forward.length))
        stack.enter_context(observing_all(model, running, lambda make, product=None: take(make())))

    forward.hidden(attach)
