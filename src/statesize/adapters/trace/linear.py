"""In which arguments each of torch's operations is linear, as real numbers."""

from __future__ import annotations

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


def terms(node: Node) -> tuple[tuple[int, ...], ...]:
    """The arguments in which an operation is linear, by their numbers: of each tuple in one of them at a time."""
    if node.name in _TOGETHER:
        linear = tuple((slot,) for slot in {slot: None for slot, _ in node.inputs if not _is_index(node, slot)})
    else:
        linear = _TERMS.get(node.name, ())
    casts = node.argument("dtype") if node.name == "_to_copy" else None
    if isinstance(casts, torch.dtype) and not (casts.is_floating_point or casts.is_complex):
        return ()
    return () if node.name == "div" and node.argument("rounding_mode") is not None else linear


def _is_index(node: Node, slot: int) -> bool:
    return node.name in ("index_add", "index_copy") and slot == 2


def spread(node: Node, linear: list[int], other: list[int]) -> tuple[int, int]:
    """The marks (bits) that the result of an operation is linear in, and those that it depends on otherwise.

    Args:
        node: The operation.
        linear: For each tensor that it takes, the marks that this is linear in.
        other: For each tensor that it takes, the marks that this depends on otherwise.

    Returns:
        Both kinds of marks of the result.
    """
    if node.name in SHAPES:
        return 0, 0
    by_slot, bad = dict[int, int](), 0
    for (slot, _), marks, others in zip(node.inputs, linear, other, strict=True):
        by_slot[slot] = by_slot.get(slot, 0) | marks
        bad |= others
    good, used = 0, set[int]()
    for term in terms(node):
        factors = [by_slot.get(slot, 0) for slot in term]
        used.update(term)
        so_far = 0
        for factor in factors:
            bad |= so_far & factor
            so_far |= factor
        good |= so_far
    for slot, marks in by_slot.items():
        if slot not in used:
            bad |= marks
    return good & ~bad, bad
