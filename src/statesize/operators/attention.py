"""Softmax attention: every past key and value is kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Self

import torch
from torch import Tensor

from statesize.check import require_count, require_real
from statesize.errors import InputError
from statesize.operators.checked import checked_sizes
from statesize.operators.operator import TensorOperator

# Rows of T that are formed at a time.
_ROWS = 256


class SoftmaxAttention(TensorOperator):
    """Causal softmax attention, T[i, j] = softmax_j(scale · q_iᵀ k_j) over the keys that i may see.

    With a cap c, a bias b and a sink s, T[i, j] = e^{score_ij} / (e^s + Σ_k e^{score_ik}), where score_ij =
    c · tanh(scale · q_iᵀ k_j / c) + b_j. ALiBi (Press et al. 2022), slope · (j − i), is the bias slope · j: the softmax
    does not see what all scores of a row have in common. One T serves all value channels of a head. The recurrence
    that it runs is its cache: TSS i, or window − 1.

    Args:
        query: (..., L, d), real floating.
        key: (..., L, d), same dtype; batch dimensions of equal rank, broadcast where 1.
        scale: Factor on the scores, usually d ** −0.5.
        window: Position i sees the keys i − window + 1 … i; None for all.
        key_bias: What is added to the scores of each key, (..., L); None for 0.
        sink: Logit of a column that takes part in the softmax and carries nothing (gpt-oss), of the batch shape; rows
            of T then sum to less than 1. None for no such column.
        soft_cap: Bound on the scores before the bias (Gemma 2); None for none.
        checked: Whether all of these are known to fit and to be finite, and query has the whole batch shape.

    Raises:
        InputError: Wrong shapes, dtypes, scale, window or cap, or not finite.

    Example:
        >>> import torch
        >>> SoftmaxAttention(torch.zeros(3, 2), torch.zeros(3, 2), scale=1.0).dense()
        tensor([[1.0000, 0.0000, 0.0000],
                [0.5000, 0.5000, 0.0000],
                [0.3333, 0.3333, 0.3333]])
    """

    _parts = (("query", 2), ("key", 2), ("key_bias", 1), ("sink", 0))

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        scale: float,
        window: int | None = None,
        *,
        key_bias: Tensor | None = None,
        sink: Tensor | None = None,
        soft_cap: float | None = None,
        checked: bool = False,
    ) -> None:
        if checked:
            batch_shape = query.shape[:-2]
        else:
            forms = {"query": (query, "L d"), "key": (key, "L d"), "key_bias": (key_bias, "L"), "sink": (sink, "")}
            _, batch_shape = checked_sizes(forms)
            for name, (tensor, _) in forms.items():
                if tensor is not None and tensor.dtype != query.dtype:
                    raise InputError(f"{name} must have the dtype of query, {query.dtype}, got {tensor.dtype}.")
            window = None if window is None else require_count("window", window)
            scale = require_real("scale", scale)
            soft_cap = None if soft_cap is None else require_real("soft_cap", soft_cap, above=0)
        self._describe(query, query.shape[-2], batch_shape)
        self.query, self.key, self.key_bias, self.sink = query, key, key_bias, sink
        # A window also where it is longer than the text: other queries may be asked from behind the text's end.
        self.scale, self.window, self.soft_cap = scale, window, soft_cap
        cached = torch.arange(self.length, device=self.device)
        self._state_size = cached if window is None else cached.clamp(max=window - 1)
        self._log_sums: Tensor | None = None

    def dense(self) -> Tensor:
        """The attention probabilities, (..., L, L)."""
        return self._probabilities(slice(None), 0, self.length)

    def columns(self, first: int, last: int) -> Tensor:
        """See `Operator.columns`; the rest of T is not formed."""
        return self.block(slice(first, self.length), slice(first, last)).detach()

    def apply(self, inputs: Tensor) -> Tensor:
        """T u, some queries at a time against the cache."""
        outputs = [self._probabilities(rows, a, b) @ inputs[..., a:b, :] for rows, a, b in self._strips()]
        return torch.cat(outputs, -2)

    def rows(self, index: Tensor) -> Tensor:
        """Chosen rows of T, (..., m, L), by their indices, (m,) int64."""
        return self._probabilities(index, 0, self.length)

    def block(self, rows: slice, columns: slice) -> Tensor:
        """T[rows, columns] of slices with both ends; the rest of T is not held."""
        return self.scores(rows, columns.start, columns.stop).sub_(self.log_sums()[..., rows, None]).exp_()

    def log_sums(self) -> Tensor:
        """Logarithms of the sums by which rows are divided, (..., L)."""
        sums, parts = self._log_sums, (getattr(self, name) for name, _ in self._parts)
        differentiable = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts)
        if sums is None or differentiable:
            sums = torch.cat([self._log_sum(self.scores(*strip)) for strip in self._strips()], -1)
            self._log_sums = sums.detach()
        return sums

    def attend(self, query: Tensor, position: int, keys: int) -> Tensor:
        """What other queries (..., m, d) read of the first keys, as if there were no more, (..., m, keys)."""
        return self._probabilities(position, 0, keys, query).nan_to_num()

    def _strips(self) -> Iterator[tuple[slice, int, int]]:
        """Rows of T, some at a time, the first column that any of them sees, and one past the last."""
        for start, end in itertools.pairwise([*range(0, self.length, _ROWS), self.length]):
            yield slice(start, end), max(0, start + 1 - (self.window or self.length)), end

    def scores(self, rows: slice | Tensor | int, first: int, last: int, query: Tensor | None = None) -> Tensor:
        """Scores of rows, or of other queries at one position, for columns first … last − 1; −∞ for unseen keys."""
        query = self.query[..., rows, :] if query is None else query
        position = rows if isinstance(rows, int) else torch.arange(self.length, device=self.device)[rows, None]
        scores = (query @ self.key[..., first:last, :].mT).mul_(self.scale)
        if self.soft_cap is not None:
            scores = (scores / self.soft_cap).tanh() * self.soft_cap
        if self.key_bias is not None:
            scores = scores + self.key_bias[..., None, first:last]
        # Without a window, rows from a slice all see the keys before the first of them.
        start = rows.start or 0 if isinstance(rows, slice) and self.window is None else first
        seen_by_all = min(max(first, start), last)
        lag = position - torch.arange(seen_by_all, last, device=self.device)
        seen = lag >= 0 if self.window is None else (lag >= 0) & (lag < self.window)
        # A sum takes a sixth of the time of a choice, and is the same, as scores are finite.
        unseen = torch.zeros(seen.shape, dtype=scores.dtype, device=self.device).masked_fill_(~seen, -torch.inf)
        scores[..., seen_by_all - first :] += unseen
        return scores

    def _probabilities(self, rows: slice | Tensor | int, first: int, last: int, query: Tensor | None = None) -> Tensor:
        """Rows of T from all scores that they see, as for `scores`."""
        scores = self.scores(rows, first, last, query)
        return scores.softmax(-1) if self.sink is None else (scores - self._log_sum(scores)[..., None]).exp_()

    def _log_sum(self, scores: Tensor) -> Tensor:
        sums = scores.logsumexp(-1)
        return sums if self.sink is None else torch.logaddexp(sums, self.sink[..., None])

    def _map(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        made = super()._map(function)
        made._log_sums = None
        return made
