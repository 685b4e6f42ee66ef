"""In which arguments each of torch's operations is linear, as real numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch

from statesize.adapters.trace.tape import Node

# Linear in all tensors that are not listed as another argument: places, sums and means, casts, parts of numbers.
_TOGETHER = frozenset(
    "_conj _fft_c2c _fft_c2r _fft_r2c _neg_view _reshape_alias _to_copy _unsafe_view add as_strided_scatter "
    "avg_pool2d cat clone col2im complex constant_pad_nd cumsum diag_embed diagonal diagonal_scatter expand flip "
    "im2col index_add index_copy mean neg permute reflection_pad1d repeat replication_pad1d roll rot90 rsub select "
    "select_scatter slice slice_scatter split split_with_sizes squeeze stack sub sum t trace transpose tril triu "
    "unbind unfold unsafe_split unsqueeze view view_as_complex view_as_real".split()
)
# Sums of products: of each term one factor may be what the operation is linear in.
_TERMS: dict[str, tuple[tuple[int, ...], ...]] = {
    **dict.fromkeys(("mul", "mm", "bmm", "mv", "dot", "vdot", "linalg_cross"), ((0, 1),)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addbmm", "addcmul", "addr"), ((0,), (1, 2))),
    **dict.fromkeys(("convolution",), ((0, 1), (2,))),
    **dict.fromkeys(("index_select", "gather", "index", "embedding", "masked_select", "take", "read"), ((0,),)),
    **dict.fromkeys(("masked_fill", "index_put", "masked_scatter"), ((0,), (2,))),
    **dict.fromkeys(("scatter", "scatter_add", "index_fill"), ((0,), (3,))),
    **dict.fromkeys(("div", "cholesky_solve", "copy", "fill"), ((0,),)),
    **dict.fromkeys(("linalg_solve_triangular", "_linalg_solve_ex"), ((1,),)),
    "where": ((1,), (2,)),
    "addcdiv": ((0,), (1,)),
    "lerp": ((0, 2), (1, 2)),
    "_trilinear": ((0, 1, 2),),
}  # fmt: skip
# What they return does not depend on the numbers that they take.
SHAPES = frozenset(
    "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty "
    "new_empty_strided".split()
)
KNOWN = frozenset(_TOGETHER | _TERMS.keys())

Terms = tuple[tuple[tuple[int, ...], ...], ...]
"""Sums of products: of each factor the places of the tensors among those that an operation takes."""


def terms(node: Node) -> Terms:
    """The products of whose factors an operation is linear in one at a time, summed up."""
    if node.terms is None:
        places = dict[int, list[int]]()
        for at, (slot, _) in enumerate(node.inputs):
            places.setdefault(slot, []).append(at)
        node.terms = tuple(tuple(tuple(places[slot]) for slot in term if slot in places) for term in _slots(node))
    return node.terms


def _slots(node: Node) -> tuple[tuple[int, ...], ...]:
    """The numbers of these arguments."""
    casts = node.argument("dtype") if node.name == "_to_copy" else None
    if isinstance(casts, torch.dtype) and not (casts.is_floating_point or casts.is_complex):
        return ()
    if node.name in _TOGETHER:
        index = 2 if node.name in ("index_add", "index_copy") else None
        return tuple((slot,) for slot in {slot: None for slot, _ in node.inputs if slot != index})
    return () if node.name == "div" and node.argument("rounding_mode") is not None else _TERMS.get(node.name, ())


def spread(node: Node, linear: Sequence[int], other: Sequence[int]) -> tuple[int, int]:
    """The marks (bits) that a result is linear in, and those that it depends on otherwise, by what it takes."""
    if node.name in SHAPES:
        return 0, 0
    good, bad, unused = 0, reduce(int.__or__, other, 0), {*range(len(linear))} if any(linear) else set[int]()
    for factors in terms(node) if unused else ():
        so_far = 0
        for places in factors:
            factor = reduce(int.__or__, (linear[at] for at in places), 0)
            unused.difference_update(places)
            bad |= so_far & factor
            so_far |= factor
        good |= so_far
    bad = reduce(int.__or__, (linear[at] for at in unused), bad)
    return good & ~bad, bad
