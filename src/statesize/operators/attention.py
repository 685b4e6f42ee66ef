"""Softmax attention: every past key and value is kept."""

from __future__ import annotations

import itertools
from typing import Self

import torch
from torch import Tensor

from statesize.check import (
    broadcast_batch,
    require_finite,
    require_floating,
    require_length,
    require_real,
    require_same_device,
    shape,
)
from statesize.errors import InputError
from statesize.operators.operator import TensorOperator, batch_index

# The tiles of scores whose sums columns of T are divided by.
_ROWS, _COLUMNS = 256, 1024


class SoftmaxAttention(TensorOperator):
    """Causal softmax attention, T[i, j] = softmax_j(scale · q_iᵀ k_j) over the keys that i may see.

    One T serves all value channels of a head. The recurrence that it runs is its cache: TSS i, or window − 1.

    Args:
        query: (..., L, d), real floating.
        key: (..., L, d), same dtype; batch dimensions of equal rank, broadcast where 1.
        scale: Factor on the scores, usually d ** −0.5.
        window: Position i sees the keys i − window + 1 … i; None for all.

    Raises:
        InputError: Wrong shapes, dtypes, scale or window, or not finite.

    Example:
        >>> import torch
        >>> SoftmaxAttention(torch.zeros(3, 2), torch.zeros(3, 2), scale=1.0).dense()
        tensor([[1.0000, 0.0000, 0.0000],
                [0.5000, 0.5000, 0.0000],
                [0.3333, 0.3333, 0.3333]])
    """

    def __init__(self, query: Tensor, key: Tensor, scale: float, window: int | None = None) -> None:
        for name, tensor in (("query", query), ("key", key)):
            require_floating(name, tensor)
            if tensor.ndim < 2 or tensor.shape[-1] == 0:
                raise InputError(f"{name} must have shape (..., L, d), got {shape(tensor)}")
            require_length(name, tensor, -2)
        if query.shape[-2:] != key.shape[-2:] or query.dtype != key.dtype:
            raise InputError(
                "query and key must have the same length, width and dtype, got "
                f"{shape(query)} {query.dtype} and {shape(key)} {key.dtype}"
            )
        require_same_device({"query": query, "key": key})
        factor = require_real("scale", scale)
        if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"window must be None or an integer of at least 1, got {window!r}")
        self._describe(query, query.shape[-2], broadcast_batch({"query": query.shape[:-2], "key": key.shape[:-2]}))
        require_finite("query", query)
        require_finite("key", key)
        self.query = query
        self.key = key
        self.scale = factor
        self.window = None if window is None else min(window, query.shape[-2])
        self._normaliser: Tensor | None = None

    def dense(self) -> Tensor:
        """The attention probabilities.

        Returns:
            T, (..., L, L).
        """
        return self._scores(0, self.length, 0, self.length).softmax(-1)

    @torch.no_grad()
    def columns(self, first: int, last: int) -> Tensor:
        """See `Operator.columns`; the rest of T is not formed."""
        if self._normaliser is None:
            self._normaliser = self._log_sums()
        scores = self._scores(first, self.length, first, last)
        return (scores - self._normaliser[..., first:, None]).exp()

    def apply(self, inputs: Tensor) -> Tensor:
        """T u, some queries at a time against the cache."""
        outputs: list[Tensor] = []
        for top, bottom in itertools.pairwise([*range(0, self.length, _ROWS), self.length]):
            first = 0 if self.window is None else max(0, top + 1 - self.window)
            outputs.append(self._scores(top, bottom, first, bottom).softmax(-1) @ inputs[..., first:bottom, :])
        return torch.cat(outputs, -2)

    def rows(self, index: Tensor) -> Tensor:
        """Chosen rows of T.

        Args:
            index: (m,) int64.

        Returns:
            (..., m, L).
        """
        lag = index[:, None] - torch.arange(self.length, device=self.device)
        scores = (self.query[..., index, :] @ self.key.mT) * self.scale
        return self._masked(scores, lag).softmax(-1)

    def state_size(self) -> Tensor:
        """The cached positions that are still to be read: i, at most window − 1.

        Returns:
            (L,) int64.
        """
        cached = torch.arange(self.length, device=self.device)
        return cached if self.window is None else cached.clamp(max=self.window - 1)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """See `Operator.to`."""
        query, key = (part.to(device=device, dtype=dtype) for part in (self.query, self.key))
        return type(self)(query, key, self.scale, self.window)

    def __getitem__(self, index: object) -> Self:
        """See `Operator.__getitem__`."""
        chosen = batch_index(index, self.batch_shape)
        query, key = (part.expand(self.batch_shape + part.shape[-2:])[chosen] for part in (self.query, self.key))
        return type(self)(query, key, self.scale, self.window)

    def _scores(self, top: int, bottom: int, first: int, last: int) -> Tensor:
        """Scores of the rows top … bottom − 1 for the columns first … last − 1, −∞ where a key is not seen."""
        row = torch.arange(top, bottom, device=self.device)
        lag = row[:, None] - torch.arange(first, last, device=self.device)
        scores = (self.query[..., top:bottom, :] @ self.key[..., first:last, :].mT) * self.scale
        return self._masked(scores, lag)

    def _masked(self, scores: Tensor, lag: Tensor) -> Tensor:
        seen = lag >= 0 if self.window is None else (lag >= 0) & (lag < self.window)
        return scores.masked_fill_(~seen, -torch.inf)

    def _log_sums(self) -> Tensor:
        """Logarithm of Σ_j e^{score} in every row, (..., L), from tiles of one size, which leave no holes in memory."""
        ends = [*range(0, self.length, _ROWS), self.length]
        return torch.cat([self._log_sum(top, bottom) for top, bottom in itertools.pairwise(ends)], -1)

    def _log_sum(self, top: int, bottom: int) -> Tensor:
        first = 0 if self.window is None else max(0, top - self.window + 1)
        ends = [*range(first, bottom, _COLUMNS), bottom]
        tiles = [self._scores(top, bottom, a, b).logsumexp(-1) for a, b in itertools.pairwise(ends)]
        return torch.stack(tiles).logsumexp(0)
