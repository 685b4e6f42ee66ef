"""A decoder of transformers by its attention: maps and values of all layers, and runs that go on from one layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_NAME = "statesize_noted"
_linalg, _special = cast("Any", torch.linalg), cast("Any", torch.special)


def singular_values(H: Tensor) -> Tensor:
    """σ of blocks (..., rows, columns) with no more rows than columns, (..., rows), ascending."""
    # What the Gram matrix rounds lies below 1e-7 of σ₁.
    values: Tensor = _linalg.eigvalsh(H @ H.mT).clamp(min=0).sqrt()
    return values


def entropies(values: Tensor) -> Tensor:
    """Entropy-ESS of singular values (..., r), (...)."""
    entropy: Tensor = _special.entr(values / values.sum(-1, keepdim=True)).sum(-1)
    return entropy.exp()


@dataclass(frozen=True, eq=False)
class Layer:
    """What one layer took and attended to in the whole run.

    Attributes:
        hidden: Its input, (S, L, D).
        kwargs: What else it was called with.
        keys: After their positions, (S, groups, L, d).
        values: (S, groups, L, d).
        weights: T of all heads, (S, heads, L, L), or its last rows alone.
    """

    hidden: Tensor
    kwargs: dict[str, Any]
    keys: Tensor
    values: Tensor
    weights: Tensor


@dataclass(eq=False)
class Noting:
    """A causal model of transformers that runs with attention as written in the definition.

    Attributes:
        model: Read in one run over whole sequences.
        difference: The largest difference of its logits from those of the model as it was, over the largest logit.
    """

    model: Any
    difference: float = 0.0
    _hidden: dict[int, tuple[Tensor, dict[str, Any]]] = field(default_factory=dict[int, Any], init=False)
    _layers: dict[int, Layer] = field(default_factory=dict[int, Layer], init=False)
    _past: list[Layer] | None = field(default=None, init=False)
    _cut: int = field(default=0, init=False)
    _lost: tuple[int, Tensor] | None = field(default=None, init=False)
    _rows: int | None = field(default=None, init=False)

    @torch.inference_mode()
    def layers(self, ids: Tensor, *, compare: bool = False, rows: int | None = None) -> list[Layer]:
        """All layers in the run over ids (S, L), with all or so many of the last rows of T."""
        self._rows = rows
        expected = self.model(ids, use_cache=False, logits_to_keep=8).logits if compare else None
        with self._attending():
            hooks = [
                layer.register_forward_pre_hook(self._hook(index), with_kwargs=True)
                for index, layer in enumerate(self.model.model.layers)
            ]
            found = self.model(ids, use_cache=False, logits_to_keep=8).logits
            for hook in hooks:
                hook.remove()
        if expected is not None:
            self.difference = max(self.difference, float((found - expected).abs().max() / expected.abs().max()))
        return [self._layers[index] for index in range(len(self._layers))]

    @torch.inference_mode()
    def rest(self, layers: list[Layer], first: int, cut: int, count: int, lost: Tensor) -> Tensor:
        """Go on from a layer, one run a head, each with a part of one head's T u lost after the cut.

        Args:
            layers: Of the whole run.
            first: The layer whose heads lose it.
            cut: Position i; the rows before it are those of the whole run.
            count: Rows after the cut.
            lost: (heads, count, d).

        Returns:
            Log-probabilities (heads, count, V).
        """
        rows = slice(cut, cut + count)
        hidden = layers[first].hidden[:, rows].expand(len(lost), -1, -1)
        self._past, self._cut, self._lost = layers, cut, (first, lost)
        with self._attending():
            for layer, noted in zip(self.model.model.layers[first:], layers[first:], strict=True):
                kwargs = noted.kwargs | {
                    "position_embeddings": tuple(part[:, rows] for part in noted.kwargs["position_embeddings"])
                }
                hidden = layer(hidden, **kwargs)
        self._past = None
        logits = self.model.lm_head(self.model.model.norm(hidden))
        return torch.log_softmax(logits.float(), -1)

    def _hook(self, index: int) -> Any:
        def before(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            kept = {"position_embeddings": kwargs["position_embeddings"], "attention_mask": None}
            self._hidden[index] = (args[0], kept)

        return before

    @contextmanager
    def _attending(self) -> Iterator[None]:
        original = self.model.config._attn_implementation
        ALL_ATTENTION_FUNCTIONS.register(_NAME, self._attend)
        ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, lambda *_, **__: None)
        self.model.config._attn_implementation = _NAME
        try:
            yield
        finally:
            self.model.config._attn_implementation = original

    def _attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, _: Any, scaling: float, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """Softmax attention of queries (S, heads, L, d); past the cut, over the keys of the whole run as well."""
        index: int = module.layer_idx
        if self._past is not None:
            before = self._past[index]
            key, value = (
                torch.cat([past[:, :, : self._cut].expand(len(new), -1, -1, -1), new], 2)
                for past, new in ((before.keys, key), (before.values, value))
            )
        (samples, heads, rows, _size), columns = query.shape, key.shape[2]
        # Heads that share keys lie behind one another.
        grouped = query.reshape(samples, key.shape[1], -1, rows, query.shape[-1])
        scores = grouped @ key[:, :, None].mT * scaling
        allowed, window = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows), kwargs.get("sliding_window")
        if window is not None:
            allowed = allowed.triu(columns - rows - window + 1)
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        mixed = (weights @ value[:, :, None]).reshape(samples, heads, rows, -1)
        if self._past is None:
            hidden, kept = self._hidden[index]
            shown = weights.reshape(samples, heads, rows, columns)
            # A copy, so that the other rows can go.
            shown = shown if self._rows is None else shown[:, :, -self._rows :].clone()
            self._layers[index] = Layer(hidden, kept, key, value, shown)
        elif self._lost is not None and self._lost[0] == index:
            each = torch.arange(samples)
            mixed[each, each] -= self._lost[1].to(mixed.dtype)
        return mixed.transpose(1, 2), None
