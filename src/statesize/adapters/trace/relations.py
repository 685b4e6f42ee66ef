"""Which entries of what an operation returns depend on which entries of what it takes, by its structure alone."""

# Both ways are maxima: labels are numbers of which the largest counts, and 0 stands for none.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.trace.linear import SHAPES
from statesize.adapters.trace.tape import Node

Values = Callable[[int], Tensor]
Into = Callable[[int], Tensor]
"""The labels of one of the tensors that an operation takes, to be raised in place."""

_VIEWS = frozenset(
    "view permute transpose t slice select unsqueeze squeeze split split_with_sizes unbind diagonal".split()
)
# Copies of entries to other places: by the arguments that they come from; the others say which.
_MOVES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys((*_VIEWS, *"_unsafe_view expand cat stack flip roll repeat tril triu".split()), (0,)),
    **dict.fromkeys("unfold diag_embed constant_pad_nd index index_select gather read".split(), (0,)),
    **dict.fromkeys("_reshape_alias rot90 im2col".split(), (0,)),
    **dict.fromkeys("take masked_select reflection_pad1d replication_pad1d unsafe_split embedding".split(), (0,)),
    **dict.fromkeys("slice_scatter select_scatter diagonal_scatter as_strided_scatter".split(), (0, 1)),
    **dict.fromkeys(("index_put", "masked_scatter"), (0, 2)),
    **dict.fromkeys(("scatter", "index_copy"), (0, 3)),
}  # fmt: skip
_REDUCTIONS = frozenset(
    "sum mean amax amin max min logsumexp prod var std linalg_vector_norm norm any all argmax argmin var_mean nansum "
    "count_nonzero median _softmax _log_softmax _safe_softmax sort topk kthvalue mode std_mean "
    "_fft_r2c _fft_c2c _fft_c2r".split()
)
_CUMULATIVE = frozenset("cumsum cumprod logcumsumexp cummax cummin".split())
_NORMS = frozenset("native_layer_norm _fused_rms_norm".split())
_SAME = frozenset(
    "clone _to_copy alias detach lift_fresh _conj _neg_view conj_physical native_dropout log_sigmoid_forward".split()
)
_PRODUCTS = frozenset("mm bmm addmm baddbmm mv dot vdot addmv".split())
_HIDDEN = -3e4
"""What is added to scores to hide them: a softmax makes 0 of them."""
_LARGEST_PRODUCT = 1 << 26


class Relation:
    """What depends on what in one operation."""

    is_exact = True
    moves = False  # whether each entry that it returns is one of those that it takes

    def forward(self, parts: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Labels of the tensors that it returns, of those of the tensors that it takes."""
        raise NotImplementedError

    def backward(self, outs: Sequence[Tensor | None], into: Into) -> None:
        """Raise labels of the tensors that it takes to those of the entries that depend on them."""
        raise NotImplementedError


def _raise(into: Tensor, part: Tensor) -> None:
    torch.maximum(into, part, out=into)


@dataclass(eq=False)
class Moved(Relation):
    """Entries at other places."""

    node: Node
    values: Values
    slots: tuple[int, ...]
    moves = True

    def _called(self, tensors: Callable[[int], Tensor]) -> list[Tensor]:
        node, following = self.node, iter(range(len(self.node.inputs)))
        if node.name == "im2col":
            # Torch moves no whole numbers so.
            return [one.to(tensors(0).dtype) for one in node.call(lambda _: tensors(0).double())]

        def taken(number: int) -> Tensor:
            at = next(following)
            return tensors(at) if node.inputs[at][0] in self.slots else self.values(number)

        if node.name == "embedding":
            table, places = (taken(number) for _, number in node.inputs)
            return [table[places]]
        return node.call(taken)

    def forward(self, parts: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Labels of what is returned."""
        like = next(part for part in parts if part is not None)

        def tensor(at: int) -> Tensor:
            part = parts[at]
            return like.new_zeros(()).expand(self.values(self.node.inputs[at][1]).shape) if part is None else part

        return [*self._called(tensor)]

    def backward(self, outs: Sequence[Tensor | None], into: Into) -> None:
        """Raise labels of what is taken."""
        node = self.node
        if node.name in _VIEWS:
            for view, out in zip(self._called(into), outs, strict=True):
                if out is not None:
                    _raise(view, out)
            return
        if node.name == "expand" and outs[0] is not None:
            _raise(into(0), _reduced(outs[0], into(0).shape))
            return
        # Where each entry comes from: they are counted through all tensors, from 1 on.
        moved = [at for at, (slot, _) in enumerate(node.inputs) if slot in self.slots]
        sizes = {at: self.values(node.inputs[at][1]).numel() for at in moved}
        starts = {at: 1 + sum(sizes[before] for before in moved if before < at) for at in moved}

        def counted(at: int) -> Tensor:
            shape = self.values(node.inputs[at][1]).shape
            return torch.arange(starts[at], starts[at] + sizes[at]).reshape(shape)

        for places, out in zip(self._called(counted), outs, strict=True):
            if out is None:
                continue
            found = out.new_zeros(1 + sum(sizes.values()))
            found = found.scatter_reduce_(0, places.reshape(-1), out.reshape(-1), "amax")
            for at in moved:
                _raise(into(at), found[starts[at] : starts[at] + sizes[at]].reshape(into(at).shape))


@dataclass(eq=False)
class Summed(Relation):
    """Entries of one tensor added to those of another one at places, of which several may be the same."""

    dim: int
    places: Tensor
    shape: torch.Size

    def _places(self, source: torch.Size) -> Tensor:
        """For each entry of what is added, its place along the dimension."""
        if self.places.ndim > 1 or len(source) == 1:
            return self.places
        view = [-1 if dim == self.dim % len(source) else 1 for dim in range(len(source))]
        return self.places.view(view).expand(source)

    def forward(self, parts: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Labels of what is returned."""
        base, added = parts[0], parts[-1]
        if added is None:
            return [base]
        whole = added.new_zeros(self.shape) if base is None else base.clone(memory_format=torch.contiguous_format)
        return [whole.scatter_reduce_(self.dim, self._places(added.shape), added.contiguous(), "amax")]

    def backward(self, outs: Sequence[Tensor | None], into: Into) -> None:
        """Raise labels of what is taken."""
        if (out := outs[0]) is not None:
            _raise(into(0), out)
            _raise(into(2), out.gather(self.dim, self._places(into(2).shape)))


def _reduced(part: Tensor, shape: torch.Size) -> Tensor:
    """The maximum over what was expanded."""
    part = part.amax(tuple(range(part.ndim - len(shape)))) if part.ndim > len(shape) else part
    dims = tuple(dim for dim, size in enumerate(shape) if size == 1 and part.shape[dim] > 1)
    return part.amax(dims, keepdim=True) if dims else part


@dataclass(eq=False)
class Pointwise(Relation):
    """Entries of the same place, after broadcasting; `hidden` says for each tensor where nothing depends on it."""

    shapes: list[torch.Size]
    outs: list[torch.Size]
    hidden: list[Tensor | None]

    def forward(self, parts: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Labels of what is returned."""
        whole: Tensor | None = None
        for part, hidden in zip(parts, self.hidden, strict=True):
            if part is None:
                continue
            part = part if hidden is None else part.masked_fill(hidden, 0)
            whole = part if whole is None else torch.maximum(whole, part)
        return [None if whole is None else whole.expand(shape) for shape in self.outs]

    def backward(self, outs: Sequence[Tensor | None], into: Into) -> None:
        """Raise labels of what is taken."""
        for out in outs:
            for at, (shape, hidden) in enumerate(zip(self.shapes, self.hidden, strict=True)):
                if out is not None:
                    part = out if hidden is None else out.masked_fill(hidden, 0)
                    _raise(into(at), _reduced(part, shape))


@dataclass(eq=False)
class Over(Relation):
    """All entries along some dimensions of one tensor; `hidden` says where the result is 0 all the same."""

    dims: tuple[int, ...]
    kept: torch.Size  # the shape where these dimensions have one entry
    shape: torch.Size
    outs: list[torch.Size]
    hidden: Tensor | None = None
    is_exact: bool = True

    def forward(self, parts: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Labels of what is returned."""
        part = parts[0]
        if part is None:
            return [None] * len(self.outs)
        whole = part.amax(self.dims, keepdim=True) if self.dims else part
        found = [(whole if len(shape) == len(self.kept) else whole.reshape(shape)).expand(shape) for shape in self.outs]
        return [one if self.hidden is None else one.masked_fill(self.hidden, 0) for one in found]

    def backward(self, outs: Sequence[Tensor | None], into: Into) -> None:
        """Raise labels of what is taken."""
        for out in outs:
            if out is not None:
                out = out if self.hidden is None else out.masked_fill(self.hidden, 0)
                out = _reduced(out, self.kept) if out.ndim == len(self.kept) else out.reshape(self.kept)
                _raise(into(0), out.expand(self.shape))


@dataclass(eq=False)
class Cumulative(Relation):
    """Entries up to the same place along a dimension, of all tensors; rows of a triangular system so far."""

    dim: int
    is_reversed: bool
    shapes: list[torch.Size]
    outs: list[torch.Size]
    by_rows: bool = False

    def _so_far(self, part: Tensor, *, backwards: bool) -> Tensor:
        part = part.amax(-1, keepdim=True) if self.by_rows else part
        if self.is_reversed != backwards:
            return part.flip(self.dim).cummax(self.dim).values.flip(self.dim)
        return part.cummax(self.dim).values

    def forward(self, parts: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Labels of what is returned."""
        found = [self._so_far(part, backwards=False) for part in parts if part is not None]
        whole = found[0] if len(found) == 1 else torch.maximum(*found)
        return [whole.expand(shape) for shape in self.outs]

    def backward(self, outs: Sequence[Tensor | None], into: Into) -> None:
        """Raise labels of what is taken."""
        for out in outs:
            if out is not None:
                part = self._so_far(out, backwards=True)
                for at, shape in enumerate(self.shapes):
                    _raise(into(at), _reduced(part, shape).expand(shape))


@dataclass(eq=False)
class Product(Relation):
    """Rows and columns of two matrices, where the other one is not 0; a tensor may be added."""

    left: int
    right: int
    added: int | None
    zeros: tuple[Tensor | None, Tensor | None]
    shape: torch.Size

    def forward(self, parts: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Labels of what is returned."""
        left, right = parts[self.left], parts[self.right]
        found = [] if left is None else [_through(left, self.zeros[1])]
        found += [] if right is None else [_through(right.mT, _turned(self.zeros[0])).mT]
        added = None if self.added is None else parts[self.added]
        found += [] if added is None else [added]
        whole = found[0].expand(self.shape)
        for part in found[1:]:
            whole = torch.maximum(whole, part)
        return [whole.expand(self.shape)]

    def backward(self, outs: Sequence[Tensor | None], into: Into) -> None:
        """Raise labels of what is taken."""
        out = outs[0]
        if out is None:
            return
        _raise(into(self.left), _through(out, _turned(self.zeros[1])).expand(into(self.left).shape))
        _raise(into(self.right), _through(out.mT, self.zeros[0]).mT.expand(into(self.right).shape))
        if self.added is not None:
            _raise(into(self.added), _reduced(out, into(self.added).shape))


def _turned(zeros: Tensor | None) -> Tensor | None:
    return None if zeros is None else zeros.mT


def _through(part: Tensor, zeros: Tensor | None) -> Tensor:
    """Labels (…, i, k) of a product with (…, j, k), given those of its factor (…, i, j) and where the other is 0."""
    if zeros is None:
        return part.amax(-1, keepdim=True)
    if bool((zeros == zeros[..., :1]).all()):
        return part.masked_fill(zeros[..., 0].unsqueeze(-2), 0).amax(-1, keepdim=True)
    if bool((part == part[..., :1, :]).all()):
        part = part[..., :1, :]
    if part.shape[-2] * zeros.numel() > _LARGEST_PRODUCT:
        return part.amax(-1, keepdim=True)
    return part.unsqueeze(-1).masked_fill(zeros.unsqueeze(-3), 0).amax(-2)


@dataclass(eq=False)
class Convolved(Relation):
    """Entries under the taps of a kernel of one dimension, in a group of channels."""

    taps: int
    dilation: int
    padding: int
    groups: int
    shape: torch.Size
    out: torch.Size

    def _pooled(self, part: Tensor, padding: int, shape: torch.Size) -> Tensor:
        by_group = part.reshape(*part.shape[:-2], self.groups, -1, part.shape[-1]).amax(-2).float()
        padded = functional.pad(by_group, (padding, padding))
        pooled = functional.max_pool1d(padded, self.taps, 1, 0, self.dilation).to(part.dtype)
        return pooled.repeat_interleave(shape[-2] // self.groups, -2)

    def forward(self, parts: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Labels of what is returned."""
        return [None if parts[0] is None else self._pooled(parts[0], self.padding, self.out)]

    def backward(self, outs: Sequence[Tensor | None], into: Into) -> None:
        """Raise labels of what is taken."""
        if outs[0] is not None:
            back = self.dilation * (self.taps - 1) - self.padding
            _raise(into(0), self._pooled(outs[0], back, self.shape))


@dataclass(eq=False)
class Smeared(Relation):
    """Everything on everything: what is not known better."""

    outs: list[torch.Size]
    count: int
    is_exact = False

    def forward(self, parts: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Labels of what is returned."""
        largest = [part.max() for part in parts if part is not None and part.numel()]
        return [torch.stack(largest).max().expand(shape) if largest else None for shape in self.outs]

    def backward(self, outs: Sequence[Tensor | None], into: Into) -> None:
        """Raise labels of what is taken."""
        for out in outs:
            if out is not None and out.numel():
                for at in range(self.count):
                    _raise(into(at), out.max().expand(into(at).shape))


@dataclass(frozen=True)
class Known:
    """What is known of the tensors of a run.

    Attributes:
        values: Their numbers.
        zeros: Where they are 0 whatever the text is; None for nowhere.
        blank: Which entries depend on no position; None where the tensor depends on none.
    """

    values: Values
    zeros: Callable[[int], Tensor | None]
    blank: Callable[[int], Tensor | None]

    def labelled(self, tensor: int) -> bool:
        """Whether a tensor depends on the text."""
        return self.blank(tensor) is not None


def relation(node: Node, known: Known) -> Relation | None:
    """What depends on what in an operation; None for nothing."""
    values = known.values
    name, ids = node.name, [number for _, number in node.inputs]
    if (
        name in SHAPES
        or not ids
        or (name == "mul" and any(isinstance(one, int | float) and one == 0 for one in node.args))
    ):
        return None
    outs = [values(out).shape for out in node.outs]
    shapes = [values(one).shape for one in ids]
    if name == "embedding" and known.labelled(ids[1]) and not known.labelled(ids[0]):
        return _AsPairs(False, outs[0], 1)
    if name in ("scatter_add", "index_add") and not known.labelled(ids[1]) and node.argument("alpha") in (None, 1):
        return Summed(node.argument("dim"), values(ids[1]), outs[0])
    if name in _MOVES and any(slot not in _MOVES[name] and known.labelled(one) for slot, one in node.inputs):
        # The places are chosen by the text.
        return Smeared(outs, len(ids))
    if node.schema is not None and (node.argument("accumulate") or (name == "scatter" and node.argument("reduce"))):
        return Smeared(outs, len(ids))
    if name in _MOVES:
        return Moved(node, values, _MOVES[name])
    if name in ("copy", "fill"):
        return Pointwise(shapes, outs, [None])
    if name in _PRODUCTS and (found := _product(ids, known, outs[0])) is not None:
        return found
    if name == "convolution" and (found := _convolved(node, shapes, outs, known)) is not None:
        return found
    if name in ("view_as_real", "view_as_complex"):
        small, large = sorted((shapes[0], outs[0]), key=len)
        return _AsPairs(len(small) < len(shapes[0]), large)
    if name in _REDUCTIONS or name in _CUMULATIVE or name in _NORMS:
        return _along(node, shapes, outs, known)
    if name == "linalg_solve_triangular" and node.argument("left"):
        # Arguments: A, B. Each row follows from those before it, of an upper matrix from those behind it.
        return Cumulative(-2, bool(node.argument("upper")), shapes, outs, by_rows=True)
    pointwise = name in _SAME or torch.Tag.pointwise in getattr(node.func, "tags", ()) or node.name in ("where", "lerp")
    if pointwise and all(_fits(shape, out) for shape in shapes for out in outs):
        return Pointwise(shapes, outs, _hidden(node, known))
    return Smeared(outs, len(ids))


def _fits(shape: torch.Size, out: torch.Size) -> bool:
    """Whether a shape is broadcast to another one."""
    pairs = zip(reversed(shape), reversed(out), strict=False)
    return len(shape) <= len(out) and all(one in (1, other) for one, other in pairs)


def _product(ids: list[int], known: Known, shape: torch.Size) -> Relation | None:
    left, right = ids[-2:]
    if known.values(left).ndim < 2 or known.values(right).ndim < 2:
        return None
    return Product(
        len(ids) - 2, len(ids) - 1, 0 if len(ids) > 2 else None, (known.zeros(left), known.zeros(right)), shape
    )


def _convolved(node: Node, shapes: list[torch.Size], outs: list[torch.Size], known: Known) -> Relation | None:
    stride, padding, dilation = (node.argument(name) for name in ("stride", "padding", "dilation"))
    fixed = not any(known.labelled(number) for _, number in node.inputs[1:])
    if len(padding) > 1 or stride[0] != 1 or node.argument("transposed") or not fixed:
        return None
    return Convolved(shapes[1][-1], dilation[0], padding[0], node.argument("groups"), shapes[0], outs[0])


def _along(node: Node, shapes: list[torch.Size], outs: list[torch.Size], known: Known) -> Relation:
    name, shape = node.name, shapes[0]
    if len([one for one in node.inputs if known.labelled(one[1])]) > 1 or len(shape) == 0:
        return Smeared(outs, len(shapes))
    dim: Any = node.argument("dim")
    if name in _NORMS:
        dim = tuple(range(-len(node.argument("normalized_shape")), 0))
    elif dim is None and name in ("sort", "topk", "kthvalue"):
        dim = -1
    dims = tuple(range(len(shape))) if dim is None or dim == [] else (dim,) if isinstance(dim, int) else tuple(dim)
    dims = tuple(one % len(shape) for one in dims)
    if name in _CUMULATIVE:
        return Cumulative(dims[0], False, shapes, outs)
    kept = torch.Size(1 if at in dims else size for at, size in enumerate(shape))
    hidden = None
    if "softmax" in name and name != "_log_softmax":
        blank = known.blank(node.inputs[0][1])
        hidden = known.values(node.outs[0]) == 0
        hidden = hidden if blank is None else hidden & blank
    return Over(dims, kept, shape, outs, hidden, is_exact="fft" not in name)


@dataclass(eq=False)
class _AsPairs(Relation):
    """All entries of the last dimension on one, or one on all, as complex numbers and pairs, or rows of a table."""

    joins: bool
    large: torch.Size
    at: int = 0

    def forward(self, parts: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Labels of what is returned."""
        part = parts[self.at]
        return [None if part is None else part.amax(-1) if self.joins else part.unsqueeze(-1).expand(self.large)]

    def backward(self, outs: Sequence[Tensor | None], into: Into) -> None:
        """Raise labels of what is taken."""
        (out,) = outs
        if out is not None:
            _raise(into(self.at), out.unsqueeze(-1).expand(self.large) if self.joins else out.amax(-1))


def _hides(tensor: int, known: Known) -> Tensor:
    value, blank = known.values(tensor), known.blank(tensor)
    hides = (value.real if value.is_complex() else value) <= _HIDDEN
    return hides if blank is None else hides & blank


def _hidden(node: Node, known: Known) -> list[Tensor | None]:
    """For each argument, where the result does not depend on it."""
    ids = [number for _, number in node.inputs]
    hidden: list[Tensor | None] = [None] * len(ids)
    if node.name in ("mul", "div") and len(ids) == 2:
        hidden = [None if node.name == "div" else known.zeros(ids[1]), known.zeros(ids[0])]
    elif node.name in ("where", "masked_fill"):
        by = 0 if node.name == "where" else 1
        (mask,) = (one for slot, one in node.inputs if slot == by)
        either = [one for slot, one in node.inputs if slot != by]
        if not known.labelled(mask):
            chosen = known.values(mask)
            return [None if slot == by else ~chosen if slot == by + 1 else chosen for slot, _ in node.inputs]
        # What is the same either way, as a score that is hidden, does not depend on the choice.
        fill = known.values(either[1]) if len(either) > 1 else node.argument("value")
        same: Tensor = known.values(either[0]) == fill
        for one in either:
            same = same if (blank := known.blank(one)) is None else same & blank
        hidden = [same] * len(ids)
    elif node.name in ("add", "sub") and len(ids) == 2:
        # A blank score that is hidden stays so, whatever is added.
        hides = [_hides(one, known) for one in ids]
        hidden = [one if bool(one.any()) else None for one in reversed(hides)]
    return hidden
