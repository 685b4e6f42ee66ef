"""A model after a prefix: what its layers hold of it, and runs over what follows with a smaller cache."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.check import check_faithful
from statesize.adapters.kernels.attention import PLAIN, Attend, attention_window, replaced_attention
from statesize.adapters.kernels.plain_attention import PlainAttention, is_band
from statesize.adapters.kernels.rotation import Rotation, rotation_of
from statesize.adapters.models.model_state import device_of, known_options, logits_of, named_parts, tensors_in
from statesize.adapters.models.precision import BOUNDS, MOST_ROUNDED, ROUNDED, relative_difference, stored_dtype
from statesize.adapters.observation import ModuleStack
from statesize.adapters.replaced import source_files
from statesize.adapters.runs import eval_mode
from statesize.check import refuse
from statesize.errors import ModelError
from statesize.reduction.cache.rounding import Precision, rounded_keys, rounded_values


@dataclass(frozen=True, eq=False)
class PrefixLayer:
    """Attention of one layer over a prefix of P tokens, whose K caches are each read by g heads.

    Attributes:
        name: Name of the module.
        index: Index of its entry in the cache.
        query: (K, g, P, d) float32, as they meet the keys.
        key: (K, P, d) float32.
        value: (K, P, d_v) float32.
        scale: Scale of the scores.
        window: Positions that a query sees, or None for all.
        rotation: Rotary embeddings, or None where queries have none.
        available: Tokens that the cache holds, the last ones, n.
    """

    name: str
    index: int
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    window: int | None
    rotation: Rotation | None
    available: int

    def attention(self, head: int, first: int = 0) -> Tensor:
        """Rows of T from one on, of the heads that read a cache, (g, P − first, P)."""
        length = self.key.shape[1]
        lag = torch.arange(first, length)[:, None] - torch.arange(length)
        unseen = (lag < 0) if self.window is None else (lag < 0) | (lag >= self.window)
        scores = self.query[head, :, first:] @ self.key[head].mT * self.scale
        return scores.masked_fill_(unseen.to(scores.device), -torch.inf).softmax(-1)


@dataclass(frozen=True, eq=False)
class Prefix:
    """A model that has read a prefix.

    Attributes:
        model: A causal language model of transformers.
        ids: Tokens of the prefix, (1, P).
        cache: The model's own.
        layers: What its layers hold.
    """

    model: nn.Module
    ids: Tensor
    cache: Any
    layers: tuple[PrefixLayer, ...]

    @cached_property
    def available(self) -> Tensor:
        """Tokens that each cache holds, (caches,) int64: those of a layer behind one another."""
        return torch.tensor([layer.available for layer in self.layers for _ in layer.key])

    @property
    def holds_layers_apart(self) -> bool:
        """Whether the model decodes from layers of different lengths: it takes no mask, and no window is full."""
        config: Any = getattr(self.model, "config", None)
        length = self.ids.shape[1]
        return config._attn_implementation == "sdpa" and all(layer.available == length for layer in self.layers)

    def cache_bytes(self, tokens: Tensor) -> int:
        """What the model's own cache holds with so many tokens of each cache, (caches,), as it stores numbers."""
        entries = [self.cache.layers[layer.index] for layer in self.layers for _ in layer.key]
        each = [part.shape[-1] * part.element_size() for entry in entries for part in (entry.keys, entry.values)]
        return int((tokens[:, None] * torch.tensor(each).view(-1, 2)).sum())


@dataclass(frozen=True, eq=False)
class Following:
    """What a layer computes of the C tokens that follow: queries (K, g, C, d), all keys and values, what is seen."""

    layer: PrefixLayer
    module: nn.Module
    query: Tensor
    key: Tensor  # (K, n + C, d)
    value: Tensor  # (K, n + C, d_v)
    seen: Tensor  # (C, n + C) bool
    hidden: Tensor  # what the layer that attention is part of was given, (C, D)


def require_cache(model: nn.Module) -> None:
    """Refuse a model that has no cache of keys and values."""
    if not known_options(model, past_key_values=None):
        raise ModelError(
            f"the model must have a cache of keys and values of transformers, got a {type(model).__name__} without. "
            "Give a causal language model of transformers with attention, such as SmolLM2."
        )


def require_context(context: int | None, tokens: int) -> None:
    """Refuse more tokens than the longest context that a model names."""
    if context is not None and tokens > context:
        refuse("tokens", f"at most {context}, the longest context that the model names", tokens)


def read_prefix(model: nn.Module, ids: Tensor) -> Prefix:
    """Let a model read a prefix (1, P) into its cache, and note what each layer holds."""
    layers, ids = list[PrefixLayer](), ids.to(device_of(model))
    require_cache(model)
    parts = named_parts(model)
    with eval_mode(model), ModuleStack(parts, ids.shape[1]).watching() as running:

        def noted(name: str, function: Attend) -> Attend:
            def attend(
                module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **options: Any
            ) -> Any:
                result = function(module, query, key, value, attention_mask, **options)
                layers.append(_noted(running, name, module, (query, key, value), attention_mask, options, result[0]))
                return result

            return attend

        with replaced_attention(source_files(parts), noted):
            output = cast("Any", model)(ids, use_cache=True, **known_options(model, logits_to_keep=1))
    cache: Any = getattr(output, "past_key_values", None)
    if not layers or not hasattr(cache, "layers"):
        raise ModelError(
            f"{type(model).__name__} must have a cache of keys and values, got none: no layer of it takes its "
            "attention from transformers' registry."
        )
    if len({layer.index for layer in layers}) < len(layers):
        raise ModelError(f"Layers of {type(model).__name__} share a cache, of which no prices are known.")
    available = (cast("Tensor", cache.layers[layer.index].keys).shape[2] for layer in layers)
    held = tuple(replace(layer, available=count) for layer, count in zip(layers, available, strict=True))
    for layer in held:
        if layer.available > ids.shape[1]:
            raise ModelError(
                f"{layer.name} must keep at most the {ids.shape[1]} tokens of the prefix, got {layer.available} in its "
                "cache: no price is known."
            )
    return Prefix(model, ids, cache, held)


def check_unaltered(prefix: Prefix, ids: Tensor) -> None:
    """Refuse a cache that noting has changed, and a model that reads tokens (1, C) behind it as in no whole text."""
    model, name = prefix.model, type(prefix.model).__name__
    ids = ids.to(prefix.ids.device)
    with eval_mode(model), torch.no_grad():
        own: Any = cast("Any", model)(prefix.ids, use_cache=True, **known_options(model, logits_to_keep=1))
        expected = logits_of(model, torch.cat([prefix.ids, ids], 1), last=ids.shape[1])[0].float()
    pairs = (tensors_in(list(map(vars, one.layers))) for one in (prefix.cache, own.past_key_values))
    for mine, unaltered in zip(*pairs, strict=True):
        alike = mine.shape == unaltered.shape
        difference = relative_difference(mine, unaltered) if alike else math.inf
        check_faithful(name, difference, "observed, what its cache holds", BOUNDS[unaltered.dtype])
    difference = relative_difference(following_logits(prefix, ids), expected)
    limit = ROUNDED if stored_dtype(model).itemsize >= torch.float32.itemsize else MOST_ROUNDED
    if not difference <= limit:
        raise ModelError(
            f"{name} must read several tokens behind its cache as in a whole text, got logits that differ by "
            f"{difference:.0e} of the largest: states beside the cache, as in Jamba, may begin anew there. No price is "
            "known."
        )


def _noted(
    running: ModuleStack,
    implementation: str,
    module: nn.Module,
    parts: tuple[Tensor, Tensor, Tensor],
    mask: Any,
    options: dict[str, Any],
    mixed: Tensor,
) -> PrefixLayer:
    name = running.frame.name
    query, key, value = (part.float() for part in parts)
    length, heads, caches = query.shape[2], query.shape[1], key.shape[1]
    if implementation not in PLAIN:
        raise ModelError(
            f"{name} must compute attention by eager or sdpa, got {implementation}. Load the model with "
            "attn_implementation='sdpa'."
        )
    if hasattr(module, "kv_lora_rank"):
        raise ModelError(
            f"{name} holds a latent (MLA) that all its heads read, not keys and values: no price is known."
        )
    if getattr(module, "is_kv_shared_layer", False) or getattr(module, "layer_idx", None) is None:
        raise ModelError(f"{name} reads the cache of another layer, so its tokens have no price of their own.")
    window, scale = attention_window(module, options), options.get("scaling")
    scale = float(query.shape[-1] ** -0.5 if scale is None else scale)
    plain = PlainAttention.of(query, key, scale, window)
    plainly = key.shape[2] == length and is_band(mask, length, window)
    if not plainly or plain.explained(value, mixed.transpose(1, 2), exact=False) is None:
        raise ModelError(
            f"{name} must be softmax attention over its keys and no more, got other outputs (a soft cap, sinks or "
            "biases): no price is known."
        )
    return PrefixLayer(
        name,
        int(cast("Any", module).layer_idx),
        query[0].reshape(caches, heads // caches, *query.shape[2:]),
        key[0],
        value[0],
        scale,
        window,
        rotation_of(running, query),
        length,
    )


Watch = Callable[[Following], None]


def following_logits(
    prefix: Prefix,
    ids: Tensor,
    *,
    keep: Sequence[Tensor] | None = None,
    precisions: Sequence[Precision | None] = (None,),
    watch: Watch | None = None,
    last: int = 0,
) -> Tensor:
    """Logits (..., C, V) float32 of the tokens that follow, (1, C); of so many last ones only, 0 for all."""
    # `keep` has one mask (..., K, n) per layer, of tokens that are not evicted; each is a sequence of one batch, which
    # is faster than one run after another. The prefix alone is rounded, in each sequence as `precisions` say.
    batch = () if keep is None else keep[0].shape[:-2]
    cache, by_index = copy.deepcopy(prefix.cache), {layer.index: at for at, layer in enumerate(prefix.layers)}
    ids = ids.to(device_of(prefix.model)).expand(math.prod(batch), -1)
    # Caches of all kinds know how to hold the same sequence several times.
    cache.reorder_cache(ids.new_zeros(len(ids)))
    for precision in filter(None, dict.fromkeys(precisions)):
        rounded = [at for at, one in enumerate(precisions) if one == precision]
        for layer in prefix.layers:
            entry = cache.layers[layer.index]
            entry.keys[rounded] = rounded_keys(entry.keys[rounded[:1]], precision)
            entry.values[rounded] = rounded_values(entry.values[rounded[:1]], precision)
    parts = named_parts(prefix.model)
    with ExitStack() as stack:
        stack.enter_context(eval_mode(prefix.model))
        watched = watch and (watch, stack.enter_context(ModuleStack(parts, ids.shape[1]).watching()))

        def changed(_: str, function: Attend) -> Attend:
            def attend(
                module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **options: Any
            ) -> Any:
                at = by_index[cast("Any", module).layer_idx]
                layer = prefix.layers[at]
                count = query.shape[2]
                seen = _seen(count, key.shape[2], layer.window, query.device)
                if watched is not None:
                    tell, running = watched
                    outer = running.frames[-2]
                    hidden = outer.args[0] if outer.args else outer.kwargs["hidden_states"]
                    groups = query[0].float().reshape(key.shape[1], -1, *query.shape[2:])
                    tell(Following(layer, module, groups, key[0].float(), value[0].float(), seen, hidden[0].float()))
                if keep is None or bool(keep[at].all()):
                    return function(module, query, key, value, attention_mask, **options)
                # The heads of a cache read the same keys, which are not copied for each, and see the same of them.
                alone, caches = copy.copy(module), key.shape[1]
                cast("Any", alone).num_key_value_groups = 1
                rows = query.reshape(len(query) * caches, -1, count, query.shape[-1])
                key, value = (part.flatten(0, 1)[:, None].expand(-1, rows.shape[1], -1, -1) for part in (key, value))
                mask = _masked(seen, keep[at].to(query.device), query.dtype)
                mixed = function(alone, rows, key, value, mask, **options)[0]
                return mixed.unflatten(0, (-1, caches)).transpose(1, 2).flatten(2, 3), None

            return attend

        stack.enter_context(replaced_attention(source_files(parts), changed))
        options = known_options(prefix.model, logits_to_keep=last)
        output = cast("Any", prefix.model)(ids, past_key_values=cache, use_cache=True, **options)
    if not hasattr(output, "logits"):
        name = type(prefix.model).__name__
        raise ModelError(
            f"{name} must return logits, got none. Give the model with its head, such as AutoModelForCausalLM loads."
        )
    logits = output.logits[:, -last:].float()
    return logits.unflatten(0, batch) if batch else logits[0]


def _seen(count: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Which keys each of the tokens that follow may see, (C, n + C)."""
    lag = torch.arange(keys - count, keys, device=device)[:, None] - torch.arange(keys, device=device)
    return (lag >= 0) if window is None else (lag >= 0) & (lag < window)


def _masked(seen: Tensor, keep: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores, (batch · K, 1, C, n + C), without the tokens that are evicted."""
    kept = torch.nn.functional.pad(keep.reshape(-1, 1, 1, keep.shape[-1]), (0, len(seen)), value=True)
    return torch.where(kept & seen, torch.zeros((), dtype=dtype, device=seen.device), torch.finfo(dtype).min)
