"""Attention of transformers models that take their attention function from the library's registry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.kernel_functions import replaced, source_files
from statesize.adapters.observation import Observation, Record
from statesize.adapters.precision import in_single, stored_element_size
from statesize.adapters.probabilities import Mixing, observed_mixing, visible_keys
from statesize.adapters.running import Running
from statesize.errors import ModelError

REGISTRY = "ALL_ATTENTION_FUNCTIONS"
# Names of implementations whose functions can be called with the identity as value, of any width.
PLAIN = ("eager", "sdpa")

Attend = Callable[..., tuple[Tensor, Tensor | None]]


@contextmanager
def observing(model: nn.Module, running: Running, record: Record) -> Generator[None]:
    """Watch every attention function that a transformers model takes from the registry.

    Configuration and registry stay as they are, because some models make their mask by the implementation's name. The
    function that the model takes is the one that computes; the observation calls it, or the eager one of the model's
    own file, for T.

    Args:
        model: The model that will run.
        running: Its running modules.
        record: Called with what makes each Observation.

    Yields:
        Nothing.
    """
    with ExitStack() as changes:
        for file in source_files(model):
            if REGISTRY in vars(file):
                watched = _Registry(vars(file)[REGISTRY], running, record)
                changes.enter_context(replaced(file, REGISTRY, watched))
        yield


class _Registry:
    """The registry of attention functions as a model's file sees it, with each function watched."""

    def __init__(self, registry: Any, running: Running, record: Record) -> None:
        self._registry = registry
        self._running = running
        self._record = record

    def get_interface(self, name: str, default: Attend) -> Attend:
        return self._watched(name, self._registry.get_interface(name, default))

    def __getitem__(self, name: str) -> Attend:
        return self._watched(name, self._registry[name])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    def _watched(self, name: str, function: Attend) -> Attend:
        def attend(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **options: Any
        ) -> tuple[Tensor, Tensor | None]:
            # The softmax tap must not see what is recorded here.
            with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
                result = function(module, query, key, value, attention_mask, **options)
            called = _Called(self._running.name, name, function, module, query, key, value, attention_mask, options)
            self._record(partial(called.observation, result[0]))
            return result

        return attend


class _Called:
    """One call of an attention function."""

    def __init__(
        self,
        name: str,
        implementation: str,
        function: Attend,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        options: dict[str, Any],
    ) -> None:
        self.name, self.module, self.options = name, module, options
        # T is made in float32 at least, of what the model's own queries and keys are.
        self.query, self.key, self.value = in_single((query, key, value))
        self.function, self.mask = function, mask
        self.window = _window(module, options)
        self.plain = implementation in PLAIN
        if implementation != "eager":
            # Eager functions need a mask where others are told that the model is causal.
            window = None if self.plain else self.window
            self.mask = _additive(module, self.query, key, mask, options.get("is_causal"), window)
        self.mask = in_single(self.mask)
        self.eager = function if implementation == "eager" else _eager(module)

    def observation(self, mixed: Tensor) -> Observation:
        length, keys = self.query.shape[2], self.key.shape[2]
        cached = keys if self.window is None else min(keys, self.window - 1)
        return observed_mixing(
            self.name,
            Mixing(self.maps(), (*self.query.shape[:2], length, keys)),
            self.value,
            mixed.transpose(1, 2),
            seen=visible_keys(self.mask, length, keys),
            window=self.window,
            state_bytes=cached * _cached_numbers(self.module, self.key, self.value) * stored_element_size(self.module),
        )

    def maps(self) -> list[Callable[[], Tensor | None]]:
        """Ways to T, (S, H, L, L), the fastest first."""
        ways: list[Callable[[], Tensor | None]] = []
        if self.eager is not None:
            ways.append(partial(self._probabilities, self.eager))
        if self.plain:
            ways.append(partial(self._response, self.function))
        elif self.eager is not None:
            ways.append(partial(self._response, self.eager))
        if not ways:
            raise ModelError(
                f"Mixer {self.name}: {type(self.module).__name__} has no eager_attention_forward in its file, from "
                "which its probabilities are taken. Load the model with attn_implementation='sdpa', or give the class "
                "a method `operator(hidden)` that returns a statesize Operator."
            )
        return ways

    def _probabilities(self, function: Attend) -> Tensor | None:
        """What the function says that it weighed values with; it may scale its output after that."""
        return self._call(function, self.value)[1]

    def _response(self, function: Attend) -> Tensor:
        """What the function makes of the identity as value."""
        identity = torch.eye(self.value.shape[2], dtype=self.value.dtype, device=self.value.device)
        return self._call(function, identity.expand(*self.value.shape[:2], -1, -1))[0].transpose(1, 2)

    def _call(self, function: Attend, value: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            return function(self.module, self.query, self.key, value, self.mask, **self.options)


def _eager(module: nn.Module) -> Attend | None:
    for kind in type(module).__mro__:
        function = getattr(sys.modules.get(kind.__module__), "eager_attention_forward", None)
        if function is not None:
            return cast("Attend", function)
    return None


def _additive(
    module: nn.Module, query: Tensor, key: Tensor, mask: Any, is_causal: bool | None, window: int | None
) -> Tensor | None:
    """The mask of an attention function as what is added to the scores; None where every key is seen."""
    length, keys = query.shape[2], key.shape[2]
    if isinstance(mask, Tensor) and mask.ndim == 4 and mask.dtype != torch.bool:
        return mask
    if isinstance(mask, Tensor) and mask.ndim == 4:
        seen = mask
    elif mask is None or isinstance(mask, Tensor):
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        if not causal or length < 2:
            return None
        seen = torch.ones(length, keys, dtype=torch.bool, device=query.device).tril()[None, None]
        if window is not None:
            seen = seen.triu(1 - window)
    else:
        # A BlockMask of flex attention.
        from torch.nn.attention.flex_attention import create_mask

        seen = create_mask(mask.mask_mod, query.shape[0], None, length, keys, device=str(query.device))
    return torch.zeros(seen.shape, dtype=query.dtype, device=query.device).masked_fill(
        ~seen, torch.finfo(query.dtype).min
    )


def _window(module: nn.Module, options: dict[str, Any]) -> int | None:
    window = options.get("sliding_window", getattr(module, "sliding_window", None))
    return int(window) if window else None


def _cached_numbers(module: nn.Module, key: Tensor, value: Tensor) -> int:
    """Numbers that the cache holds for one position: keys and values, or what multi-head latent attention keeps."""
    if hasattr(module, "expand_kv"):
        latent = cast("Any", module)
        return int(latent.kv_lora_rank) + int(latent.qk_rope_head_dim)
    return key.shape[1] * (key.shape[-1] + value.shape[-1])
