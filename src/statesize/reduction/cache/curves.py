"""What a layer's output loses as each of its caches keeps fewer tokens, and ESS and sinks of each cache."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.precision import MOST_ROUNDED, ROUNDED, relative_difference
from statesize.adapters.observation import in_this_thread
from statesize.adapters.runs import eval_mode
from statesize.io.steps import Steps
from statesize.measurement.metrics import entropy_ess
from statesize.reduction.cache.budgets import GRID, at_shares
from statesize.reduction.cache.prefix import Following, Prefix, PrefixLayer, following_logits, read_prefix
from statesize.reduction.cache.rules import Rule, kept_first

# A mixed value of this share of its head's shows what it is multiplied by.
_SHOWS = 1e-3
# Names of the map behind attention in transformers.
_PROJECTIONS = ("o_proj", "dense", "out_proj", "c_proj", "wo")


def error_curves(prefix: Prefix, ids: Tensor, rule: Rule, norms: dict[str, nn.Module]) -> Tensor:
    """Squared error of what attention adds, as a share of ‖hidden‖², (caches, points) float64."""
    # On the tokens that follow, (1, C), behind the output projection and the norm after it; each cache is cut alone.
    layers, entered = list[Following](), dict[nn.Module, Tensor]()
    projections = {layer.name: _projection(prefix.model.get_submodule(layer.name)) for layer in prefix.layers}

    def enter(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        entered[module] = args[0][0]

    with ExitStack() as stack:
        for module in filter(None, projections.values()):
            stack.callback(module.register_forward_pre_hook(in_this_thread(enter)).remove)
        following_logits(prefix, ids, watch=layers.append, last=1)
    with torch.no_grad():
        made = [
            _layer_curves(seen, rule, part, None if part is None else entered.get(part), norms.get(seen.layer.name))
            for seen, part in zip(layers, (projections[seen.layer.name] for seen in layers), strict=True)
        ]
    return torch.cat(made)


def curves_of_documents(
    model: nn.Module, documents: Iterable[Tensor], length: int, rule: Rule, steps: Steps
) -> Iterator[tuple[Prefix, Tensor]]:
    """The prefix of each document, its first so many tokens, and the curves (caches, points) of the rest of it."""
    norms: dict[str, nn.Module] | None = None
    for ids in documents:
        with steps.timed("prefixes"):
            read = read_prefix(model, ids[None, :length])
        with steps.timed("curves"):
            norms = norms_after(model, read) if norms is None else norms
            curves = error_curves(read, ids[None, length:], rule, norms)
        yield read, curves


def _layer_curves(
    seen: Following, rule: Rule, projection: nn.Module | None, entered: Tensor | None, norm: nn.Module | None
) -> Tensor:
    """Curves of the caches of one layer, (K, points); `entered` is what the projection took, (C, H · d_v)."""
    layer, caches = seen.layer, len(seen.query)
    scores = (seen.query @ seen.key[:, None].mT * layer.scale).masked_fill_(~seen.seen, -torch.inf)
    weights = (scores - scores.amax(-1, keepdim=True)).exp_()
    values = seen.value[:, None]
    whole = weights @ values / weights.sum(-1, keepdim=True)  # (K, g, C, d_v)
    gates = _gates(whole, entered)
    # K blocks of rows, one for the heads of each cache.
    matrix = _matrix(projection, whole)
    maps = matrix.reshape(caches, -1, matrix.shape[-1])
    rows = torch.ones(whole.shape[2], dtype=torch.float64, device=whole.device)
    if norm is not None:
        added = ((whole * gates).transpose(1, 2).flatten(2) @ maps).sum(0)
        # The norm divides by what all heads add together, and weighs channels.
        rows = 1 / added.double().square().mean(-1)
        maps = maps * norm(torch.ones_like(added[:1]))
    gram = (maps @ maps.mT).double()
    counts = list(map(int, at_shares(torch.tensor([layer.available]), GRID)[0]))
    curves = torch.zeros(caches, len(GRID), dtype=torch.float64)
    # What is kept at a point is what the point before keeps, and the tokens between.
    after, order = weights[..., layer.available :], kept_first(rule, layer)
    mixed, total = after @ values[:, :, layer.available :], after.sum(-1, keepdim=True)
    for point, (before, count) in enumerate(itertools.pairwise([0, *counts])):
        if count == layer.available:
            break
        added = order[:, before:count]
        paid = weights.take_along_dim(added[:, None, None], -1)
        mixed = mixed + paid @ values.take_along_dim(added[:, None, :, None], -2)
        total = total + paid.sum(-1, keepdim=True)
        lost = ((mixed / total - whole) * gates).transpose(1, 2).flatten(2).double()
        curves[:, point] = (((lost @ gram) * lost).sum(-1) * rows).sum(-1).cpu()
    return curves / float(seen.hidden.double().square().sum())


def _gates(whole: Tensor, entered: Tensor | None) -> Tensor:
    """By what a gate or a norm multiplies the mixed values (K, g, C, d_v) before the projection; ones without any."""
    if entered is None:
        return torch.ones_like(whole)
    caches, heads, count, _ = whole.shape
    given = entered.float().reshape(count, caches, heads, -1).permute(1, 2, 0, 3)
    rounded = ROUNDED if entered.dtype.itemsize >= torch.float32.itemsize else MOST_ROUNDED
    if given.shape != whole.shape or relative_difference(given, whole) <= rounded:
        return torch.ones_like(whole)
    # Where a value is about 0, nothing shows what it is multiplied by: as much as others of the head at most.
    shows = whole.abs() > _SHOWS * whole.square().mean(-1, keepdim=True).sqrt()
    gates = torch.where(shows, given / whole, 0.0)
    most = gates.abs().amax(-1, keepdim=True)
    return torch.where(shows, gates, (given / whole).nan_to_num(0.0).clamp(-most, most))


def _projection(module: nn.Module) -> nn.Module | None:
    """What stands behind attention; None where nothing is known."""
    parts = (getattr(module, name, None) for name in _PROJECTIONS)
    return next((part for part in parts if isinstance(part, nn.Module)), None)


def _matrix(projection: nn.Module | None, whole: Tensor) -> Tensor:
    """The projection of mixed values (K, g, C, d_v) as a matrix, (H · d_v, D); without one, the identity."""
    if type(projection) is nn.Linear:
        return projection.weight.detach().mT.float()
    identity = torch.eye(whole.shape[0] * whole.shape[1] * whole.shape[-1], device=whole.device)
    if projection is None:
        return identity
    weight = next(projection.parameters(), None)
    identity = identity if weight is None else identity.to(weight.dtype)
    return (projection(identity) - projection(torch.zeros_like(identity[:1]))).float()


def norms_after(model: nn.Module, prefix: Prefix) -> dict[str, nn.Module]:
    """RMS norms through which the output of attention goes before it is added, as in Gemma 3, by the module's name."""
    found: dict[str, nn.Module] = {}
    outputs: dict[str, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(eval_mode(model))

        def keep(name: str, _: nn.Module, __: object, output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple) else output

        def compare(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and args[0] is outputs.get(name):
                found[name] = module

        for name in (layer.name for layer in prefix.layers):
            hook = in_this_thread(partial(keep, name))
            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
            for sibling in model.get_submodule(name.rpartition(".")[0]).children():
                if "RMSNorm" in type(sibling).__name__:
                    hook = in_this_thread(partial(compare, name))
                    stack.callback(sibling.register_forward_pre_hook(hook).remove)
        cast("Any", model)(prefix.ids[:, :4], use_cache=False)
    return found


class CacheSizes(NamedTuple):
    """What the caches of a prefix carry at its middle, (caches,) float64 each.

    Attributes:
        joint: Joint entropy-ESS of the heads that read each cache.
        read: Entropy-ESS of what they read, H V.
        sink: Mean sink share of the heads.
    """

    joint: Tensor
    read: Tensor
    sink: Tensor


def cache_sizes(prefix: Prefix) -> CacheSizes:
    """ESS of each cache at the middle of a prefix, and its sinks."""
    rows = [_sizes(layer, head) for layer in prefix.layers for head in range(len(layer.key))]
    joint, read, sink = torch.tensor(rows, dtype=torch.float64).T
    return CacheSizes(joint, read, sink)


def _sizes(layer: PrefixLayer, head: int) -> tuple[float, float, float]:
    attention = layer.attention(head)
    cut = attention.shape[-1] // 2
    block = attention[:, cut:, :cut].flatten(0, 1).double()
    sink = attention.mean(1).amax(-1).mean()
    return _entropy(block), _entropy(block @ layer.value[head, :cut].double()), float(sink)


def _entropy(block: Tensor) -> float:
    """Entropy-ESS of a matrix; what squares round, below 1e-8 σ₁, it does not show."""
    gram = block.mT @ block if block.shape[-1] <= block.shape[-2] else block @ block.mT
    return float(entropy_ess(cast("Any", torch.linalg).eigvalsh(gram).clamp(min=0).sqrt()))
