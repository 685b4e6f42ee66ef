"""Attention of transformers models that take their attention function from the library's registry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.observation import Record
from statesize.adapters.precision import stored_element_size
from statesize.adapters.pretrained import configurations
from statesize.adapters.probabilities import observed_probabilities
from statesize.adapters.running import Running
from statesize.errors import ModelError

NAME = "statesize"
IMPLEMENTATION = "_attn_implementation_internal"


@contextmanager
def observing(model: nn.Module, running: Running, record: Record) -> Generator[None]:
    """Watch every attention function that a transformers model takes from the registry.

    The function registered here calls `eager_attention_forward` of the model's own file, so scale, soft cap, sinks,
    window and mask are the model's, and takes the probabilities that it returns.

    Args:
        model: The model that will run.
        running: Its running modules.
        record: Called with each Observation.

    Yields:
        Nothing.
    """
    configs = configurations(model, lambda part: part._can_set_attn_implementation())
    if not configs:
        yield
        return
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask  # pyright: ignore[reportUnknownVariableType]

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        # The softmax tap must not see what is recorded here.
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            output, probabilities = _eager(module)(module, query, key, value, attention_mask, **options)
        if probabilities is None:
            raise ModelError(f"Mixer {running.name}: its eager attention returns no probabilities.")
        window = _window(module, options)
        cached = value.shape[2] if window is None else min(value.shape[2], window - 1)
        observation = observed_probabilities(
            running.name,
            probabilities,
            value,
            output.transpose(1, 2),
            seen=_seen(attention_mask),
            window=window,
            state_bytes=cached * _cached_numbers(module, key, value) * stored_element_size(module),
        )
        record(observation)
        return output, probabilities

    implementations = [(config, getattr(config, IMPLEMENTATION, None)) for config in configs]
    interfaces: list[tuple[Any, Any]] = [(AttentionInterface, attend), (AttentionMaskInterface, eager_mask)]
    try:
        for interface, function in interfaces:
            interface.register(NAME, function)
        for config, _ in implementations:
            setattr(config, IMPLEMENTATION, NAME)
        yield
    finally:
        for config, implementation in implementations:
            setattr(config, IMPLEMENTATION, implementation)
        for interface, _ in interfaces:
            interface._global_mapping.pop(NAME, None)


def _eager(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    for kind in type(module).__mro__:
        function = getattr(sys.modules.get(kind.__module__), "eager_attention_forward", None)
        if function is not None:
            return cast("Callable[..., tuple[Tensor, Tensor | None]]", function)
    raise ModelError(
        f"{type(module).__name__} has no eager_attention_forward in its file, from which its probabilities are taken; "
        "give the class a method `operator(hidden)` that returns a statesize Operator."
    )


def _seen(mask: Tensor | None) -> Tensor | None:
    # Added to the scores: 0 where a key is seen, the dtype's least number where not. ALiBi lies between.
    if mask is None or mask.shape[-1] != mask.shape[-2]:
        return None
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return seen.flatten(0, -3).any(0)


def _window(module: nn.Module, options: dict[str, Any]) -> int | None:
    window = options.get("sliding_window", getattr(module, "sliding_window", None))
    return int(window) if window else None


def _cached_numbers(module: nn.Module, key: Tensor, value: Tensor) -> int:
    """Numbers that the cache holds for one position: keys and values, or what multi-head latent attention keeps."""
    if hasattr(module, "expand_kv"):
        latent = cast("Any", module)
        return int(latent.kv_lora_rank) + int(latent.qk_rope_head_dim)
    return key.shape[1] * (key.shape[-1] + value.shape[-1])
