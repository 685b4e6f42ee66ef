"""What the unaltered model computes, and which references a model that is read again and again is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from statesize.adapters.calls import ArgumentCopies, Call, sampled
from statesize.adapters.faithfulness import relative_difference
from statesize.adapters.forward import Forward
from statesize.adapters.models.layout import position_axis
from statesize.adapters.models.model_state import device_of, open_autocast
from statesize.adapters.runs import bare, read
from statesize.errors import ModelError


def read_calls(forward: Forward, calls: Sequence[Call]) -> Tensor | None:
    """The last hidden state of a run whose hooks only read; `calls` take over the arguments and outputs seen there."""
    copies = ArgumentCopies()
    expected = {module: [call for call in calls if call.module is module] for module in {call.module for call in calls}}
    entered: dict[nn.Module, int] = dict.fromkeys(expected, 0)
    left: dict[nn.Module, int] = dict.fromkeys(expected, 0)

    def at(module: nn.Module, times: dict[nn.Module, int]) -> Call | None:
        times[module] += 1
        return next(iter(expected[module][times[module] - 1 :]), None)

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = at(module, entered)
        if call is not None:
            call.autocast = open_autocast()
            call.args, call.kwargs = copies.of(args), copies.of(kwargs)

    def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        call = at(module, left)
        if call is not None:
            call.output = sampled(output)

    hidden = forward.hidden(read, enter=dict.fromkeys(expected, enter), leave=dict.fromkeys(expected, leave))
    for module, of_module in expected.items():
        if entered[module] != len(of_module):
            raise ModelError(
                f"Mixer {of_module[0].name} ran {len(of_module)} times in the observed run and {entered[module]} times "
                "in another run of the same inputs: the model is not deterministic, so that it cannot be measured."
            )
    return hidden


def check_deterministic(forward: Forward, read: Tensor | None) -> None:
    """Refuse a model that, with nothing attached, gives another last hidden state than `read`, in any bit."""
    unattached = forward.hidden(bare, attach=partial(_seeded_otherwise, device_of(forward.model)))
    if unattached is None or read is None or _equal(unattached, read):
        return
    again = forward.hidden()
    where = where_they_differ(unattached, read, forward.length)
    if again is not None and _equal(again, read):
        raise ModelError(
            f"{type(forward.model).__name__} draws random numbers in eval mode, so that no two runs of it agree{where}:"
            " dropout that is always on, or noise. Call dropout with training=self.training, or set its rate to 0."
        )
    raise ModelError(
        f"{type(forward.model).__name__} gives another last hidden state when it runs the same inputs once more{where},"
        " so there is no reference to compare with. Make it deterministic: no dropout or noise in eval mode, no state "
        "of its own from call to call, torch.use_deterministic_algorithms(True) on a GPU."
    )


def where_they_differ(one: Tensor, other: Tensor, length: int) -> str:
    """The first position at which two outputs differ and how far they do, in brackets; "" where shapes do not tell."""
    axis = position_axis(one, length)
    if axis is None or one.shape != other.shape:
        return ""
    difference = torch.where(one == other, 0.0, (one - other).abs()).movedim(axis, 0).flatten(1).amax(1)
    first = int((difference != 0).nonzero()[0])
    size = float(difference.max() / torch.maximum(one.abs().max(), other.abs().max()))
    return f" (first at position {first}, by {size:.1e} of the largest value)"


def _seeded_otherwise(device: torch.device, _: object) -> None:
    """Let a run begin with another state of the generators, which are put back after it."""
    torch.default_generator.manual_seed(torch.initial_seed() ^ 1)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(torch.cuda.initial_seed() ^ 1)


def _equal(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def first_difference(calls: Sequence[Call], observed: Sequence[Tensor | None], limit: float) -> str | None:
    """The first mixer whose output in the observed run is further than `limit` from the unaltered model's, or None."""
    for call, output in zip(calls, observed, strict=True):
        if output is not None and call.output is not None and not relative_difference(output, call.output) <= limit:
            return call.name
    return None


Checks = Literal["all", "read", "none"]


@dataclass(eq=False)
class CheckPolicy:
    """What a model that is read again and again is compared with.

    Attributes:
        after: What readings are compared with once the model has passed all checks, until one of its modules or dtypes
            is another one.

    Example:
        >>> checking, model = CheckPolicy("none"), nn.Linear(2, 2)
        >>> checking.for_run(model), checking.for_run(model), checking.for_run(model.double())
        ('all', 'none', 'all')
    """

    after: Checks
    _passed: tuple[object, ...] | None = field(default=None, init=False)

    def for_run(self, model: nn.Module) -> Checks:
        """What the next run is compared with."""
        modules = tuple((id(module), type(module)) for module in model.modules())
        dtypes = tuple[torch.dtype, ...](parameter.dtype for parameter in model.parameters())
        before, self._passed = self._passed, (modules, dtypes)
        return self.after if before == self._passed else "all"
