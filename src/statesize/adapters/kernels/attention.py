"""Attention of transformers models that take their attention function from the library's registry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.kernels.plain_attention import PlainAttention, is_band
from statesize.adapters.kernels.probabilities import Mixing, observed_mixing, of_identity, visible_keys
from statesize.adapters.models.model_state import is_a
from statesize.adapters.models.precision import arithmetic_of, at_least
from statesize.adapters.observation import ModuleStack, Observation, OnObservation, Product, random_like
from statesize.adapters.replaced import (
    MixerCall,
    meanings,
    replaced,
    source_of,
    with_first,
)
from statesize.adapters.select import LIBRARIES
from statesize.errors import ModelError

REGISTRY = "ALL_ATTENTION_FUNCTIONS"
# Names of implementations whose functions can be called with the identity as value, of any width.
PLAIN = ("eager", "sdpa")

# Classes that call their attention function twice and subtract.
DIFFERENTIAL = ("DiffLlamaAttention",)

Attend = Callable[..., tuple[Tensor, Tensor | None]]
Change = Callable[[str, Attend], Attend]


@contextmanager
def observing(files: Sequence[ModuleType], running: ModuleStack, record: OnObservation) -> Generator[None]:
    """Watch every attention function that a transformers model takes from the registry."""
    # Configuration and registry stay as they are, because some models make their mask by the implementation's name. The
    # function that the model takes is the one that computes; the observation calls it, or the eager one of the model's
    # own file, for T.
    halves: Kept = {}

    def attend(
        name: str,
        function: Attend,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        # The softmax tap must not see what is recorded here.
        with running.unseen():
            result = function(module, query, key, value, attention_mask, **options)
        called = _Called(running, name, function, module, query, key, value, attention_mask, options)
        if is_a(module, DIFFERENTIAL):
            halves.setdefault(module, []).append(called)
            return result
        product = Product(value, -2, result[0], 1)
        return with_first(result, record(partial(called.observation, result[0]), product))

    with ExitStack() as stack:
        stack.enter_context(replaced_attention(files, partial(partial, attend)))
        if any(name in vars(file) for file in files for name in DIFFERENTIAL):
            subtracting = source_of(DIFFERENTIAL, ("groupnorm",), partial(_difference, halves))
            stack.enter_context(subtracting(files, running, record))
        yield


def replaced_attention(files: Sequence[ModuleType], change: Change) -> AbstractContextManager[None]:
    """Let `change(name, function)` take the place of every attention function that some files take by its name."""
    own = [file for file in files if vars(file).get(REGISTRY) is not None]
    return replaced({(file, REGISTRY): _Registry(meanings(file)[REGISTRY], change) for file in own})


@dataclass(frozen=True, eq=False)
class _Registry:
    """The registry of attention functions as a model's file sees it, with each function changed."""

    _registry: Any
    _change: Change

    def get_interface(self, name: str, default: Attend) -> Attend:
        return self._change(name, self._registry.get_interface(name, default))

    def __getitem__(self, name: str) -> Attend:
        return self._change(name, self._registry[name])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)


class _Called:
    """One call of an attention function."""

    def __init__(
        self,
        running: ModuleStack,
        implementation: str,
        function: Attend,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        options: dict[str, Any],
    ) -> None:
        self.name, self.text, self.module, self.options = running.frame.name, running.length, module, options
        self.running = running
        # T is made in float32 at least, of what the model's own queries and keys are.
        self.query, self.key, self.value = at_least((query, key, value), torch.float32)
        self.function, self.given_mask = function, mask
        self.implementation = implementation
        self.window = attention_window(module, options)
        # What scores are multiplied by.
        scale = options.get("scaling")
        scale = getattr(module, "scaling", None) if scale is None else scale
        self.scale = scale if isinstance(scale, float) else query.shape[-1] ** -0.5
        self.plain = implementation in PLAIN
        # Whether it is one that a user has registered, of which nothing is known; kernels of the hub have a "/".
        package = str(getattr(function, "__module__", "")).partition(".")[0]
        known = self.plain or implementation == "eager" or "/" in implementation
        self.is_own = not known and package not in LIBRARIES
        files = (sys.modules.get(kind.__module__) for kind in type(module).__mro__)
        eager = (getattr(file, "eager_attention_forward", None) for file in files)
        self.eager = function if implementation == "eager" else cast("Attend | None", next(filter(None, eager), None))

    @cached_property
    def mask(self) -> Any:
        """What is added to the scores, (…, L, L), or None."""
        if self.implementation == "eager":
            return at_least(self.given_mask, torch.float32)
        # Eager functions need a mask where others have an argument `is_causal`.
        window = None if self.plain else self.window
        causal = self.options.get("is_causal")
        return at_least(_additive(self.module, self.query, self.key, self.given_mask, causal, window), torch.float32)

    def observation(self, mixed: Tensor) -> Observation:
        length, keys = self.query.shape[2], self.key.shape[2]
        if getattr(self.module, "compressor", None) is not None and keys > length:
            raise ModelError(
                f"Mixer {self.name} attends to {keys - length} compressed entries beside its {length} positions, each "
                "a normalised mixture of several positions: what it passes on is not linear in the values of the "
                "positions, so it has no T."
            )
        mixed = mixed.transpose(1, 2)
        plain = self._by_queries_and_keys()
        if plain is not None:
            values, leaving = self.probed if self.running.exact else (self.value, mixed)
            difference = plain.explained(values, leaving, exact=self.running.exact)
            if difference is not None:
                return plain.observation(self.name, self.value, mixed, self.module, difference)
        return observed_mixing(
            self.name,
            Mixing(self.maps(), (*self.query.shape[:2], length, keys)),
            self.value,
            mixed,
            seen=None if self.is_own else visible_keys(self.mask, length, keys),
            window=self.window,
            keys=(self.key,),
            text=self.text,
            module=self.module,
            probed=lambda: self.probed,
            largest_score=lambda: PlainAttention.of(self.query, self.key, self.scale, self.window).largest_score(),
        )

    @cached_property
    def probed(self) -> tuple[Tensor, Tensor]:
        """Random values (S, K, L, P), and what the model's own function makes of them, (S, H, L, P)."""
        values = random_like(self.value)
        return values, self._call(self.function, values, self.given_mask)[0].transpose(1, 2)

    def _by_queries_and_keys(self) -> PlainAttention | None:
        """Its queries and keys, where they alone may say what it passed on."""
        length = self.query.shape[2]
        causal = self.options.get("is_causal")
        causal = getattr(self.module, "is_causal", True) if causal is None else causal
        if self.key.shape[2] != length or self.text != length or not (causal or self.given_mask is not None):
            return None
        if not is_band(self.given_mask, length, self.window):
            return None
        sink, cap = self.options.get("s_aux"), self.options.get("softcap")
        if sink is not None and sink.shape != self.query.shape[1:2]:
            return None
        sink = None if sink is None else sink.detach().to(self.query.dtype)
        return PlainAttention.of(self.query, self.key, self.scale, self.window, sink=sink, soft_cap=cap)

    def maps(self) -> list[Callable[[], Tensor | None]]:
        """Ways to T, (S, H, L, L), the fastest first."""
        if self.is_own:
            return [partial(of_identity, partial(self._response, self.function, self.given_mask), self.value)]
        function, eager = self.function if self.plain else self.eager, self.eager
        if function is None:
            raise ModelError(
                f"Mixer {self.name}: {type(self.module).__name__} has no eager_attention_forward in its file, from "
                "which its probabilities are taken. Load the model with attn_implementation='sdpa', or give the class "
                "a method `operator(hidden)` that returns a statesize Operator."
            )
        response = partial(of_identity, partial(self._response, function, self.mask), self.value)
        # An eager function says what it weighed values with; it may scale its output after that.
        return [response] if eager is None else [lambda: self._call(eager, self.value, self.mask)[1], response]

    def _response(self, function: Attend, mask: Any, values: Tensor) -> Tensor:
        """What the function makes of other values."""
        return self._call(function, values, mask)[0].transpose(1, 2)

    def _call(self, function: Attend, value: Tensor, mask: Any) -> tuple[Tensor, Tensor | None]:
        # Not the softmax tap must see this, but in float64 all of it must compute in float64. Compiled, flex attention
        # has no float64 on a CPU; without this module nothing has been compiled, and importing it takes a second.
        compiled = "torch._dynamo" in sys.modules
        eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
        with self.running.unseen(), arithmetic_of(value), torch.no_grad(), eager:
            return function(self.module, self.query, self.key, value, mask, **self.options)


def _difference(halves: Kept, call: MixerCall) -> Observation:
    """Differential attention (Ye et al. 2024, arXiv 2410.05258, equation 1): softmax₁ − λ softmax₂, one T per pair."""
    # The attention function was called for both halves of the values, each time with all heads.
    first, second = halves.pop(call.module)
    module = cast("Any", call.module)
    rates = [torch.exp((getattr(module, f"lambda_q{n}") * getattr(module, f"lambda_k{n}")).sum()) for n in (1, 2)]
    rate = rates[0] - rates[1] + module.lambda_init
    sequences, heads, length, _ = first.query.shape
    values = torch.cat([first.value, second.value], -1)[:, : first.value.shape[1] // 2]

    def subtracted(way: Callable[[], Tensor | None]) -> Tensor | None:
        maps = way()
        return None if maps is None else maps[:, : heads // 2] - rate * maps[:, heads // 2 :]

    return observed_mixing(
        call.name,
        Mixing([partial(subtracted, way) for way in first.maps()], (sequences, heads // 2, length, first.key.shape[2])),
        values,
        call.parts["groupnorm"].args[0].transpose(1, 2),
        module=call.module,
        seen=visible_keys(first.mask, length, first.key.shape[2]),
        window=first.window,
        keys=(first.key,),
        text=first.text,
        kind="differential attention",
    )


Kept = dict[nn.Module, list[_Called]]


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


def attention_window(module: nn.Module, options: dict[str, Any]) -> int | None:
    """The positions that a query sees, itself included, or None for all before it."""
    window = options.get("sliding_window", getattr(module, "sliding_window", None))
    return int(window) if window else None
