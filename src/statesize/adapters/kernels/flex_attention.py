"""torch's flex_attention, where a layer calls it directly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial, wraps
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from statesize.adapters.kernels.probabilities import Mixing, observed_mixing, of_identity, of_random
from statesize.adapters.models.precision import at_least
from statesize.adapters.observation import ModuleStack, Observation, OnObservation, Product
from statesize.adapters.replaced import first, meanings, replaced, with_first


def observing(files: Sequence[ModuleType], running: ModuleStack, record: OnObservation) -> AbstractContextManager[None]:
    """Observe flex_attention, compiled or not, by the names that it has in the files of a model's layers."""
    functions = {(file, name): function for file in files for name, function in _functions(file).items()}
    return replaced({place: _observed(function, running, record) for place, function in functions.items()})


def _functions(file: ModuleType) -> dict[str, Callable[..., Any]]:
    from torch.nn.attention.flex_attention import flex_attention

    if file.__name__.startswith(("torch.", "transformers.")):
        return {}
    return {name: function for name, function in meanings(file).items() if _uncompiled(function) is flex_attention}


def _uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return getattr(function, "_torchdynamo_orig_callable", function)


def _observed(function: Callable[..., Any], running: ModuleStack, record: OnObservation) -> Callable[..., Any]:
    @wraps(function)
    def attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        # The softmax that it computes inside is this mixing itself.
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            result = function(query, key, value, *args, **kwargs)
        if not running.frames:
            return result
        frame, mixed = running.frame, first(result)

        def answers(values: Tensor) -> Tensor:
            with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
                # Compiled for a CPU, it knows no float64.
                return first(_uncompiled(function)(*at_least((query, key), torch.float32), values, *args, **kwargs))

        def observation() -> Observation:
            maps = partial(of_identity, answers, at_least(value, torch.float32))
            return observed_mixing(
                frame.name,
                Mixing([maps], (query.shape[0], query.shape[1], query.shape[2], value.shape[2])),
                value,
                mixed,
                module=frame.module,
                seen=None,
                window=None,
                keys=(key,),
                text=running.length,
                probed=partial(of_random, answers, at_least(value, torch.float32)),
            )

        return with_first(result, record(observation, Product(value, -2, mixed, -2)))

    return attend
