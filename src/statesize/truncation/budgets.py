"""How many tokens each cache keeps: the same share for all, or where curves of error say that tokens help most."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import in_this_thread
from statesize.truncation.behind import HeldAttention
from statesize.truncation.choices.choice import RECENT, SINKS

# Names of the map behind attention in transformers.
_PROJECTIONS = ("o_proj", "dense", "out_proj", "c_proj", "wo")
GRID = (1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)
"""Shares of the tokens at which curves are measured."""


def at_shares(available: Tensor, shares: Sequence[float]) -> Tensor:
    """Tokens (caches, shares) of what each cache holds (caches,), at least the first and last that all rules keep."""
    counts = (available[:, None] * torch.tensor(list(shares), dtype=torch.float64)).round().long()
    return counts.maximum(available[:, None].clamp(max=SINKS + RECENT))


def equal(available: Tensor, share: float) -> Tensor:
    """The same share of each cache, (caches,) int64."""
    return at_shares(available, (share,))[:, 0]


def at_curves(available: Tensor, errors: Tensor, share: float) -> Tensor:
    """As many tokens together as equal budgets, by curves at the shares of GRID (caches, points): (caches,) int64."""
    counts, total = at_shares(available, GRID), int(equal(available, share).sum())
    return by_curves(counts, errors, total) if total > int(counts[:, 0].sum()) else equal(available, share)


def at_layer_curves(available: Tensor, errors: Tensor, share: float, caches: Sequence[int]) -> Tensor:
    """The same for all caches of a layer together, of which each has so many; equal budgets where they differ."""
    first = caches[0]
    if {*caches} != {first}:
        return equal(available, share)
    together = errors.view(-1, first, errors.shape[-1]).sum(1)
    return at_curves(available[::first], together, share).repeat_interleave(first)


def by_curves(counts: Tensor, errors: Tensor, total: int) -> Tensor:
    """Budgets (caches,) int64 of `total` tokens together with the least sum of errors (caches, points) at counts."""
    # Each curve is replaced by its lower convex hull, whose slopes are an isotonic regression; tokens then go where the
    # error falls most for each, which is optimal for such curves (Fox 1966, "Discrete optimization via marginal
    # analysis").
    regression = cast("Any", import_module("scipy.optimize")).isotonic_regression  # importing it takes time
    budgets, segments = counts[:, 0].clone(), list[tuple[float, int, int]]()
    for cache, (tokens, error) in enumerate(zip(counts.unbind(), errors.double().unbind(), strict=True)):
        lengths, falls = tokens.diff(), error.diff()
        lengths, falls = lengths[lengths > 0], falls[lengths > 0]
        slopes = regression((falls / lengths).numpy(), weights=lengths.numpy()).x
        pieces = cast("list[int]", lengths.tolist())
        segments += zip(slopes.tolist(), [cache] * len(pieces), pieces, strict=True)
    left = total - int(budgets.sum())
    # Stable, so that the segments of a cache stay in their order.
    for _, cache, length in sorted(segments, key=lambda segment: segment[0]):
        taken = min(length, left)
        budgets[cache] += taken
        left -= taken
    return budgets


@dataclass(eq=False)
class Around:
    """What stands around the attention of one layer, seen in a run over the whole text."""

    projection: nn.Module | None  # the map behind attention; None where nothing is known
    hidden: Tensor | None = None  # what the layer that attention is part of was given, (S, L, D)
    output: object = None  # what attention returned
    norm: nn.Module | None = None  # the RMS norm through which that goes before it is added, as in Gemma 3


def watch(model: nn.Module, around: dict[str, Around], stack: ExitStack) -> None:
    """See in a run what stands around all modules that may be attention."""

    def enter_layer(name: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        around[name].hidden = args[0] if args else kwargs.get("hidden_states")

    def leave(name: str, _: nn.Module, __: object, output: Any) -> None:
        around[name].output = output[0] if isinstance(output, tuple) else output

    def enter_norm(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and args[0] is around[name].output:
            around[name].norm = module

    for name, module in named_parts(model):
        layer = model.get_submodule(name.rpartition(".")[0])
        parts = (getattr(module, part, None) for part in _PROJECTIONS)
        around[name] = Around(next((part for part in parts if isinstance(part, nn.Module)), None))
        if around[name].projection is None:
            continue
        hook = in_this_thread(partial(enter_layer, name))
        stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        stack.callback(module.register_forward_hook(in_this_thread(partial(leave, name))).remove)
        norms = [child for child in layer.children() if "RMSNorm" in type(child).__name__]
        for norm in norms:
            stack.callback(norm.register_forward_pre_hook(in_this_thread(partial(enter_norm, name))).remove)


@torch.no_grad()
def layer_curves(held: HeldAttention, order: Tensor, around: Around) -> Tensor:
    """Squared error of what attention adds where one cache is cut, as a share of ‖hidden‖², (K, points of GRID)."""
    # `order` has the tokens of each cache in the order in which they are kept, (K, n).
    cut, caches = held.cut, len(held.key)
    weights = held.rows(held.query[None, :, :, cut:].float(), held.key[None].float())[0]
    values = held.value[:, None].float()
    whole = weights @ values  # (K, g, C, P)
    # K blocks of rows, one for the heads of each cache.
    matrix = _matrix(around.projection, whole)
    maps = matrix.reshape(caches, -1, matrix.shape[-1])
    rows = torch.ones(whole.shape[2], dtype=torch.float64, device=whole.device)
    if around.norm is not None:
        added = (whole.transpose(1, 2).flatten(2) @ maps).sum(0)
        # The norm divides by what all heads add together, and weighs channels.
        rows = 1 / added.double().square().mean(-1)
        maps = maps * around.norm(torch.ones_like(added[:1]))
    gram = (maps @ maps.mT).double()
    counts = list(map(int, at_shares(torch.tensor([held.available]), GRID)[0]))
    curves = torch.zeros(caches, len(GRID), dtype=torch.float64)
    # What is kept at a point is what the point before keeps, and the tokens between; a sink stays in the sum.
    after = weights[..., cut:]
    mixed, total = after @ values[:, :, cut:], after.sum(-1, keepdim=True) + 1 - weights.sum(-1, keepdim=True)
    for point, (before, count) in enumerate(pairwise([0, *counts])):
        if count == held.available:
            break
        more = order[:, before:count]
        paid = weights.take_along_dim(more[:, None, None], -1)
        mixed = mixed + paid @ values.take_along_dim(more[:, None, :, None], -2)
        total = total + paid.sum(-1, keepdim=True)
        error = (mixed / total - whole).transpose(1, 2).flatten(2).double()
        curves[:, point] = (((error @ gram) * error).sum(-1) * rows).sum(-1).cpu()
    hidden = whole if around.hidden is None else around.hidden[held.text, cut:]
    return curves / float(hidden.double().square().sum())


def _matrix(projection: nn.Module | None, whole: Tensor) -> Tensor:
    """The projection of mixed values (K, g, C, P) as a matrix, (H · P, D); without one, the identity."""
    identity = torch.eye(whole.shape[0] * whole.shape[1] * whole.shape[-1], device=whole.device)
    if projection is None:
        return identity
    identity = identity.to(next(projection.parameters(), identity).dtype)
    return (projection(identity) - projection(torch.zeros_like(identity[:1]))).float()
