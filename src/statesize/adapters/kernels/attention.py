"""Attention of transformers models that take their attention function from the library's registry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.kernels.plain_attention import AttentionCall, PlainAttention, is_band
from statesize.adapters.kernels.probabilities import Mixing, observed_mixing, of_identity, visible_keys
from statesize.adapters.models.model_state import is_a
from statesize.adapters.models.precision import arithmetic_of, at_least
from statesize.adapters.observation import ModuleStack, Observation, OnObservation, Product, random_like
from statesize.adapters.replaced import MixerCall, meanings, replaced, source_of, with_first
from statesize.adapters.select import LIBRARIES

REGISTRY = "ALL_ATTENTION_FUNCTIONS"
PLAIN = ("eager", "sdpa")  # implementations whose functions take the identity as value, of any width
_DIFFERENTIAL = ("DiffLlamaAttention",)  # classes that call their attention function twice and subtract

Attend = Callable[..., tuple[Tensor, Tensor | None]]
Change = Callable[[str, Attend], Attend]


@contextmanager
def observing(files: Sequence[ModuleType], running: ModuleStack, record: OnObservation) -> Generator[None]:
    """Watch every attention function that a transformers model takes from the registry."""
    # Configuration and registry stay as they are, because some models make their mask by the implementation's name. The
    # function that the model takes is the one that computes; the observation calls it, or the eager one of the model's
    # own file, for T.
    halves = dict[nn.Module, list[_Called]]()

    def attend(name: str, function: Attend, module: nn.Module, *given: Any, **options: Any) -> Any:
        result = function(module, *given, **options)
        called = _Called(running, name, function, module, (given, options))
        if is_a(module, _DIFFERENTIAL):
            halves.setdefault(module, []).append(called)
            return result
        product = Product(given[2], -2, result[0], 1)
        return with_first(result, record(partial(called.observation, result[0]), product))

    subtracts = any(is_a(part, _DIFFERENTIAL) for _, part in running.parts)
    source = source_of(_DIFFERENTIAL, ("groupnorm",), lambda call: _difference(call, *halves.pop(call.module)))
    with replaced_attention(files, partial(partial, attend)):
        with source(files, running, record) if subtracts else nullcontext():
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
    """One call of an attention function, which has a name in the registry."""

    def __init__(
        self, running: ModuleStack, name: str, function: Attend, module: nn.Module, arguments: tuple[Any, Any]
    ) -> None:
        given, options = arguments
        self.name, self.running, self.module = running.frame.name, running, module
        self.implementation, self.function = name, function
        # T is made in float32 at least, of what the model's own queries and keys are.
        self.query, self.key, self.value = cast("list[Tensor]", at_least([*given[:3]], torch.float32))
        self.options = dict(options)
        named = self.options.pop("attention_mask", None)
        self.given_mask: Any = given[3] if len(given) > 3 else named
        # The positions that a query sees, itself included.
        window = self.options.get("sliding_window", getattr(module, "sliding_window", None))
        self.window = int(window) if window else None
        # What scores are multiplied by.
        scale = self.options.get("scaling")
        scale = getattr(module, "scaling", None) if scale is None else scale
        self.scale = scale if isinstance(scale, float) else self.query.shape[-1] ** -0.5
        self.plain = name in PLAIN
        # Whether it is one that a user has registered, of which nothing is known; kernels of the hub have a "/".
        package = str(getattr(function, "__module__", "")).partition(".")[0]
        self.is_own = not self.plain and "/" not in name and package not in LIBRARIES

    @cached_property
    def mask(self) -> Any:
        """What is added to the scores, (…, L, L), or None."""
        # Eager functions need a mask where others have an argument `is_causal`.
        return at_least(self.given_mask if self.implementation == "eager" else self._additive(), torch.float32)

    @property
    def is_causal(self) -> bool:
        """Whether the call hides later keys without a mask."""
        said = self.options.get("is_causal")
        return getattr(self.module, "is_causal", True) if said is None else said

    def _additive(self) -> Tensor | None:
        """The mask as what is added to the scores; None where every key is seen."""
        mask, (length, keys), device = self.given_mask, (self.query.shape[2], self.key.shape[2]), self.query.device
        if isinstance(mask, Tensor) and mask.ndim == 4:
            if mask.dtype != torch.bool:
                return mask
            seen = mask
        elif mask is None or isinstance(mask, Tensor):
            if not self.is_causal or length < 2:
                return None
            seen = torch.ones(length, keys, dtype=torch.bool, device=device).tril()[None, None]
            seen = seen if self.plain or self.window is None else seen.triu(1 - self.window)
        else:
            # A BlockMask of flex attention.
            from torch.nn.attention.flex_attention import create_mask

            seen = create_mask(mask.mask_mod, self.query.shape[0], None, length, keys, device=str(device))
        least = torch.finfo(self.query.dtype).min
        return torch.zeros(seen.shape, dtype=self.query.dtype, device=device).masked_fill(~seen, least)

    def observation(self, mixed: Tensor) -> Observation:
        """T of the call, by its queries and keys if these alone say it."""
        length, keys = self.query.shape[2], self.key.shape[2]
        mixed, plain, exact = mixed.transpose(1, 2), self._by_queries_and_keys(), self.running.exact
        call = AttentionCall(
            name=self.name,
            module=self.module,
            values=self.value,
            mixed=mixed,
            keys=(self.key,),
            window=self.window,
            largest_score=lambda: PlainAttention.of(self.query, self.key, self.scale, self.window).largest_score(),
        )
        if plain is not None:
            values, leaving = self.probed if exact else (self.value, mixed)
            difference = 0.0 if self.running.describes else plain.explained(values, leaving, exact=exact)
            if difference is not None:
                found = plain.observation(replace(call, largest_score=plain.largest_score))
                return replace(found, difference=difference)
        mixing = Mixing(self.maps, (len(self.query), self.query.shape[1], length, keys))
        seen = None if self.is_own else visible_keys(self.mask, length, keys)
        return observed_mixing(replace(call, probed=lambda: self.probed), mixing, self.running.length, seen)

    @cached_property
    def probed(self) -> tuple[Tensor, Tensor]:
        """Random values (S, K, L, P), and what the model's own function makes of them, (S, H, L, P)."""
        values = random_like(self.value)
        return values, self._call(self.function, values, self.given_mask)[0].transpose(1, 2)

    def _by_queries_and_keys(self) -> PlainAttention | None:
        """Its queries and keys, where they alone may say what it passed on."""
        length = self.query.shape[2]
        if self.key.shape[2] != length or self.running.length != length:
            return None
        if not (self.is_causal or self.given_mask is not None) or not is_band(self.given_mask, length, self.window):
            return None
        sink, cap = self.options.get("s_aux"), self.options.get("softcap")
        if sink is not None and sink.shape != self.query.shape[1:2]:
            return None
        sink = None if sink is None else sink.detach().to(self.query.dtype)[None]
        return PlainAttention.of(self.query, self.key, self.scale, self.window, sink=sink, soft_cap=cap)

    def maps(self) -> Tensor:
        """T, (S, H, L, L)."""
        function, mask = (self.function, self.given_mask) if self.is_own else (self._weighing, self.mask)
        return of_identity(lambda values: self._call(function, values, mask)[0].transpose(1, 2), self.value)

    @property
    def _weighing(self) -> Attend:
        """A function that takes values of any width: the model's own, or the eager one of its file."""
        if self.plain:
            return self.function
        files = (sys.modules.get(kind.__module__) for kind in type(self.module).__mro__)
        return next(filter(None, (getattr(file, "eager_attention_forward", None) for file in files)))

    def _call(self, function: Attend, value: Tensor, mask: Any) -> tuple[Tensor, Tensor | None]:
        # In float64 all of it must compute in float64. Compiled, flex attention has no float64 on a CPU; without this
        # module nothing has been compiled, and importing it takes a second.
        compiled = "torch._dynamo" in sys.modules
        eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
        with arithmetic_of(value), torch.no_grad(), eager:
            return function(self.module, self.query, self.key, value, mask, **self.options)


def _difference(call: MixerCall, first: _Called, second: _Called) -> Observation:
    """Differential attention (Ye et al. 2024, arXiv 2410.05258, equation 1): softmax₁ − λ softmax₂, one T per pair."""
    # The attention function was called for both halves of the values, each time with all heads.
    module = cast("Any", call.module)
    rates = [torch.exp((getattr(module, f"lambda_q{n}") * getattr(module, f"lambda_k{n}")).sum()) for n in (1, 2)]
    rate = rates[0] - rates[1] + module.lambda_init
    sequences, heads, length, _ = first.query.shape

    def subtracted() -> Tensor:
        maps = first.maps()
        return maps[:, : heads // 2] - rate * maps[:, heads // 2 :]

    attended = AttentionCall(
        name=call.name,
        module=module,
        values=torch.cat([first.value, second.value], -1)[:, : first.value.shape[1] // 2],
        mixed=call.parts["groupnorm"].args[0].transpose(1, 2),
        keys=(first.key,),
        window=first.window,
        kind="differential attention",
    )
    mixing = Mixing(subtracted, (sequences, heads // 2, length, first.key.shape[2]))
    return observed_mixing(attended, mixing, first.running.length, visible_keys(first.mask, *mixing.shape[2:]))
