"""The first and the last position that every entry of a run depends on, by the structure of each operation alone."""

# Labels are numbers of which the largest counts, and 0 stands for none: unions are maxima.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.trace.linear import SHAPES
from statesize.adapters.trace.tape import Node, Tape

Parts = Sequence[Tensor | None]
# Copies of entries to other places: by the arguments that they come from; the others say which.
_MOVES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys("view permute transpose t slice select unsqueeze squeeze split split_with_sizes".split(), (0,)),
    **dict.fromkeys("unbind diagonal _unsafe_view expand cat stack flip roll repeat tril triu".split(), (0,)),
    **dict.fromkeys("unfold diag_embed constant_pad_nd index index_select gather read".split(), (0,)),
    **dict.fromkeys("_reshape_alias rot90 im2col".split(), (0,)),
    **dict.fromkeys("take masked_select reflection_pad1d replication_pad1d unsafe_split embedding".split(), (0,)),
    **dict.fromkeys("slice_scatter select_scatter diagonal_scatter as_strided_scatter".split(), (0, 1)),
    **dict.fromkeys(("index_put", "masked_scatter"), (0, 2)),
    **dict.fromkeys(("scatter", "index_copy"), (0, 3)),
}  # fmt: skip
_FILLED = frozenset("tril triu diag_embed constant_pad_nd im2col".split())
"""Those of them that put zeros beside."""
_REDUCTIONS = frozenset(
    "sum mean amax amin max min logsumexp prod var std linalg_vector_norm norm any all argmax argmin var_mean nansum "
    "count_nonzero median _softmax _log_softmax _safe_softmax sort topk kthvalue mode std_mean "
    "_fft_r2c _fft_c2c _fft_c2r".split()
)
_CUMULATIVE = frozenset("cumsum cumprod logcumsumexp cummax cummin".split())
_NORMS = frozenset("native_layer_norm _fused_rms_norm".split())
_POINTWISE = frozenset(
    "clone _to_copy alias detach lift_fresh _conj _neg_view conj_physical native_dropout log_sigmoid_forward where "
    "lerp copy fill".split()
)
_PRODUCTS = frozenset("mm bmm addmm baddbmm mv dot vdot addmv".split())
_HIDDEN = -3e4
"""What is added to scores to hide them: a softmax makes 0 of them."""
_LARGEST_PRODUCT = 1 << 26


class Label:
    """Of each entry the last position plus 1, and L less the first one; 0 for none: unions are maxima of both.

    Args:
        last: The former, a tensor, or one number for all entries.
        first: The latter, likewise.
        shape: The tensor's shape.
        dtype: The dtype of labels as tensors.
    """

    __slots__ = "_parts", "dtype", "same", "shape"

    def __init__(self, last: Tensor | int, first: Tensor | int, shape: torch.Size, dtype: torch.dtype) -> None:
        self._parts, self.shape, self.dtype = (last, first), shape, dtype
        self.same = (last, first) if isinstance(last, int) and isinstance(first, int) else None

    @property
    def last(self) -> Tensor:
        """Of each entry the last position plus 1."""
        return self.part(0)

    @property
    def first(self) -> Tensor:
        """L less the first position."""
        return self.part(1)

    def part(self, which: int) -> Tensor:
        """One of both."""
        part = self._parts[which]
        return torch.tensor(part, dtype=self.dtype).expand(self.shape) if isinstance(part, int) else part

    def changed(self, change: Callable[[Tensor], Tensor]) -> Label:
        """Labels of the entries at other places."""
        last, first = change(self.last), change(self.first)
        return Label(last, first, last.shape, self.dtype)


def own(shape: torch.Size, axis: int, length: int) -> Label:
    """The label of a tensor each entry of which depends on its own position."""
    view = [-1 if dim == axis % len(shape) else 1 for dim in range(len(shape))]
    dtype = torch.int16 if length < 1 << 15 else torch.int32
    at = torch.arange(length, dtype=dtype)
    return Label((at + 1).view(view).expand(shape), (length - at).view(view).expand(shape), shape, dtype)


def ahead(label: Label, axis: int, length: int) -> Tensor:
    """By how many positions the last one that entries depend on lies behind their own, (L,)."""
    return (label.last - own(label.shape, axis, length).last).movedim(axis, 0).reshape(label.shape[axis], -1).amax(1)


def placed(label: Label, length: int) -> tuple[int, int] | None:
    """The dimension along which the last position that entries depend on is their own, and how many come before.

    Returns:
        Both; None where there is no such dimension. Entries around the text, as of a learned prefix, depend on none.
    """
    if label.same:
        return None
    for axis, size in enumerate(label.shape):
        if not length <= size <= 2 * length:
            continue
        line = label.last.movedim(axis, 0).reshape(label.shape[axis], -1).amax(1)
        first = int((line == 1).int().argmax()) if bool((line == 1).any()) else 0
        if first + length > size or bool(line[:first].any()) or bool(line[first + length :].any()):
            continue
        part = label.last.narrow(axis, first, length)
        if bool(((part == own(part.shape, axis, length).last) | (part == 0)).all()) and bool(part.any()):
            return axis, first
    return None


def width(label: Label | None, length: int) -> int:
    """How many positions lie between the first and the last one that an entry depends on, at most."""
    if label is None or not label.shape.numel():
        return 0
    both = sum(label.same) if label.same else int((label.last + label.first).max())
    return max(0, both - length - 1)


def distance(label: Label | None, axis: int, length: int) -> int:
    """How far from its own position on an axis an entry depends on others, at most."""
    if label is None:
        return 0
    if label.same:
        return max(label.same) - 1
    at = own(label.shape, axis, length)
    far = torch.maximum(label.last - at.last, label.first - at.first)
    return max(0, int(far.masked_fill(label.last == 0, 0).max()))


@dataclass(frozen=True, eq=False, slots=True)
class Relation:
    """What depends on what in one operation.

    Attributes:
        forward: Makes labels of the tensors that it returns, of those of the tensors that it takes.
        is_exact: Whether these say no more than what depends on what.
        moves: Whether each entry that it returns is one of those that it takes.
        covers: Whether each entry that it returns depends on some entry of each tensor that it takes.
    """

    forward: Callable[[Parts], list[Tensor | None]]
    is_exact: bool = True
    moves: bool = False
    covers: bool = False


class Labels:
    """Labels of the tensors of a run.

    Attributes:
        of: Label of each tensor that depends on the text.
        relations: What depends on what in each operation that takes such a tensor.
        choices: Where given, what is chosen by numbers, such as the places of the highest, is taken as the run took it;
            these are the labels of the run where it depends on the numbers.
        has_choices: Whether there are such.
    """

    def __init__(self, tape: Tape, length: int, given: Mapping[int, Label], choices: Labels | None = None) -> None:
        self.tape, self.values, self.length, self.choices = tape, tape.values, length, choices
        self.of, self.relations, self.has_choices = dict(given), dict[Node, Relation](), False
        self.given, self._zeros = given, dict[int, Tensor | None]()
        self.run(tape.nodes)

    def fixed(self, tensor: int, condition: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Where the numbers of a tensor are such whatever the text is; None for nowhere."""
        label = self.of.get(tensor)
        if label is not None and label.same:
            return None
        found = condition(self.values[tensor])
        found = found if label is None else found & (label.last == 0)
        return found if bool(found.any()) else None

    def zeros(self, tensor: int) -> Tensor | None:
        """Where a tensor is 0 whatever the text is; None for nowhere."""
        if tensor not in self._zeros:
            # A choice that is 0 here is another one for another text.
            self._zeros[tensor] = (self.choices or self).fixed(tensor, lambda value: value == 0)
        return self._zeros[tensor]

    def of_one(self, tensor: int) -> bool:
        """Whether all entries of a tensor that depend on the text have the same last position."""
        label = self.of.get(tensor)
        if label is None or label.same or not label.shape.numel():
            return True
        return not bool(((label.last != label.last.max()) & (label.last != 0)).any())

    def moves(self, node: Node) -> bool:
        """Whether an operation returns entries of what it takes at other places."""
        found = self.relations.get(node)
        return found is not None and found.moves

    def run(self, nodes: Iterable[Node]) -> None:
        """Label what some operations return."""
        for node in nodes:
            if not any(tensor in self.of for _, tensor in node.inputs):
                continue
            found = self.relations[node] if node in self.relations else relation(node, self)
            if found is None:
                continue
            self.relations[node] = found
            for out, label in zip(
                node.outs, self.made(node, [self.of.get(one) for _, one in node.inputs]), strict=True
            ):
                is_choice = not (self.values[out].is_floating_point() or self.values[out].is_complex())
                self.has_choices |= is_choice
                if label is not None and out not in self.given and (self.choices is None or not is_choice):
                    self.of[out] = label

    def made(self, node: Node, given: Sequence[Label | None]) -> list[Label | None]:
        """Labels of what an operation returns, of those of what it takes."""
        found, known = self.relations[node], [label for label in given if label is not None]
        if not known:
            return [None] * len(node.outs)
        dtype, shapes = known[0].dtype, [self.values[out].shape for out in node.outs]
        same = [label.same for label in known if label.same]
        if found.covers and len(same) == len(known):
            last, first = max(one for one, _ in same), max(one for _, one in same)
            return [Label(last, first, shape, dtype) for shape in shapes]
        parts = [found.forward([label and label.part(which) for label in given]) for which in (0, 1)]
        largest = max(label.shape.numel() for label in known)
        return [
            None if last is None or first is None else _label(last, first, dtype, shrinks=last.numel() < largest)
            for last, first in zip(*parts, strict=True)
        ]

    def without(self, tensor: int, nodes: Iterable[Node]) -> Labels:
        """Labels of a run in which a tensor, from which some operations follow, does not depend on the text."""
        other = object.__new__(Labels)
        vars(other).update(vars(self))
        nodes = list(nodes)
        below = {out for node in nodes for out in node.outs}
        other.of = {one: label for one, label in self.of.items() if one != tensor and one not in below}
        other.given = {tensor: None, **self.given}
        other.run(nodes)
        return other


def _label(last: Tensor, first: Tensor, dtype: torch.dtype, *, shrinks: bool) -> Label:
    """A label; as one number for all entries where a part has been taken out of which they are the same."""
    if shrinks and last.numel():
        (least, most), (begins, ends) = last.aminmax(), first.aminmax()
        if least == most and begins == ends and least:
            return Label(int(most), int(ends), last.shape, dtype)
    return Label(last, first, last.shape, dtype)


def relation(node: Node, labels: Labels) -> Relation | None:
    """What depends on what in an operation; None for nothing."""
    name, ids, of, values = node.name, [number for _, number in node.inputs], labels.of, labels.values
    if (
        name in SHAPES
        or not ids
        or (name == "mul" and any(isinstance(one, int | float) and one == 0 for one in node.args))
    ):
        return None
    outs, shapes = [values[out].shape for out in node.outs], [values[one].shape for one in ids]
    if name == "embedding" and ids[1] in of and ids[0] not in of:
        return _splits(outs[0], at=1)
    if name == "view_as_real":
        return _splits(outs[0])
    if name == "view_as_complex":
        return _over(shapes[0], (len(shapes[0]) - 1,), outs)
    if name in ("scatter_add", "index_add") and ids[1] not in of and node.argument("alpha") in (None, 1):
        return _added(node.argument("dim"), values[ids[1]], outs[0])
    if name in _MOVES:
        chooses = any(slot not in _MOVES[name] and one in of for slot, one in node.inputs)
        adds = node.schema is not None and (
            node.argument("accumulate") or (name == "scatter" and node.argument("reduce"))
        )
        # Otherwise the places are chosen by the text.
        return _smeared(outs) if chooses or adds else _moved(node, labels)
    found = None
    if name in _PRODUCTS and min(len(shapes[-1]), len(shapes[-2])) > 1:
        return _product(labels.zeros(ids[-2]), labels.zeros(ids[-1]), outs[0])
    if name == "convolution":
        found = _convolved(node, labels, outs)
    elif name in _REDUCTIONS | _CUMULATIVE | _NORMS and [one in of for one in ids].count(True) == 1 and ids[0] in of:
        found = _along(node, labels, outs) if shapes[0] else None
    elif name == "linalg_solve_triangular" and node.argument("left"):
        # Arguments: A, B. Each row follows from those before it, of an upper matrix from those behind it.
        found = _by_rows(outs, is_upper=bool(node.argument("upper")))
    elif name in _POINTWISE or torch.Tag.pointwise in getattr(node.func, "tags", ()):
        fits = all(_fits(shape, out) for shape in shapes for out in outs)
        found = _pointwise(_hidden(node, labels), outs) if fits else None
    return found or _smeared(outs)


def _fits(shape: torch.Size, out: torch.Size) -> bool:
    """Whether a shape is broadcast to another one."""
    pairs = zip(reversed(shape), reversed(out), strict=False)
    return len(shape) <= len(out) and all(one in (1, other) for one, other in pairs)


def _smeared(outs: Sequence[torch.Size]) -> Relation:
    """Everything on everything: what is not known better."""

    def forward(parts: Parts) -> list[Tensor | None]:
        largest = [part.max() for part in parts if part is not None and part.numel()]
        return [torch.stack(largest).max().expand(shape) if largest else None for shape in outs]

    return Relation(forward, is_exact=False, covers=True)


def _splits(shape: torch.Size, at: int = 0) -> Relation:
    """All entries along a new last dimension on one, as pairs on complex numbers, or rows of a table on ids."""

    def forward(parts: Parts) -> list[Tensor | None]:
        part = parts[at]
        return [None if part is None else part.unsqueeze(-1).expand(shape)]

    return Relation(forward, covers=True)


def _added(dim: int, places: Tensor, shape: torch.Size) -> Relation:
    """Entries of one tensor added to those of another one at places, of which several may be the same."""

    def forward(parts: Parts) -> list[Tensor | None]:
        base, added = parts[0], parts[-1]
        if added is None:
            return [base]
        index = places
        if index.ndim == 1 < added.ndim:
            index = index.view([-1 if at == dim % added.ndim else 1 for at in range(added.ndim)]).expand(added.shape)
        whole = added.new_zeros(shape) if base is None else base.clone(memory_format=torch.contiguous_format)
        return [whole.scatter_reduce_(dim, index, added.contiguous(), "amax")]

    return Relation(forward)


def _moved(node: Node, labels: Labels) -> Relation:
    """Entries at other places."""
    values, slots = labels.values, _MOVES[node.name]

    def forward(parts: Parts) -> list[Tensor | None]:
        like, following = next(part for part in parts if part is not None), iter(range(len(parts)))

        def taken(number: int) -> Tensor:
            at = next(following)
            if node.inputs[at][0] not in slots:
                return values[number]
            part = parts[at]
            return like.new_zeros(()).expand(values[number].shape) if part is None else part

        if node.name == "im2col":
            # Torch moves no whole numbers so.
            return [one.to(like.dtype) for one in node.call(lambda number: taken(number).double())]
        if node.name == "embedding":
            table, places = (taken(number) for _, number in node.inputs)
            return [table[places]]
        return [*node.call(taken)]

    moved = [slot for slot, _ in node.inputs if slot in slots]
    return Relation(forward, moves=True, covers=len(moved) == 1 and node.name not in _FILLED)


def _pointwise(hidden: Sequence[Tensor | None], outs: Sequence[torch.Size]) -> Relation:
    """Entries of the same place, after broadcasting; `hidden` says for each tensor where nothing depends on it."""
    nowhere = [hides is not None and bool(hides.all()) for hides in hidden]

    def forward(parts: Parts) -> list[Tensor | None]:
        whole: Tensor | None = None
        for part, hides, is_hidden in zip(parts, hidden, nowhere, strict=True):
            if part is not None and not is_hidden:
                part = part if hides is None else part.masked_fill(hides, 0)
                whole = part if whole is None else torch.maximum(whole, part)
        return [None if whole is None else whole.expand(shape) for shape in outs]

    return Relation(forward, covers=all(one is None for one in hidden))


def _over(
    shape: torch.Size,
    dims: Sequence[int],
    outs: Sequence[torch.Size],
    hidden: Tensor | None = None,
    *,
    exact: bool = True,
) -> Relation:
    """All entries along some dimensions of the first tensor; `hidden` says where the result is 0 all the same."""
    kept = [size for at, size in enumerate(shape) if at not in dims]

    def forward(parts: Parts) -> list[Tensor | None]:
        part = parts[0]
        if part is None:
            return [None] * len(outs)
        whole = part.amax(tuple(dims), keepdim=True) if dims else part
        found = [(whole if len(out) == len(shape) else whole.reshape(kept)).expand(out) for out in outs]
        return [one if hidden is None else one.masked_fill(hidden, 0) for one in found]

    return Relation(forward, exact, covers=hidden is None)


def _along(node: Node, labels: Labels, outs: Sequence[torch.Size]) -> Relation:
    """Entries along dimensions of the first tensor: all, or those up to the same place."""
    (_, number), *_ = node.inputs
    shape, name, dim = labels.values[number].shape, node.name, node.argument("dim")
    if name in _NORMS:
        dim = tuple(range(-len(node.argument("normalized_shape")), 0))
    elif dim is None and name in ("sort", "topk", "kthvalue"):
        dim = -1
    dims = tuple(range(len(shape))) if dim is None or dim == [] else (dim,) if isinstance(dim, int) else tuple(dim)
    dims = tuple(one % len(shape) for one in dims)
    if name in _CUMULATIVE:
        return Relation(
            lambda parts: [None if parts[0] is None else parts[0].cummax(dims[0]).values] * len(outs), covers=True
        )
    hidden = None
    if name in ("_softmax", "_safe_softmax"):
        unseen = labels.values[node.outs[0]] == 0
        hidden = labels.fixed(number, lambda _: unseen)
    return _over(shape, dims, outs, hidden, exact="fft" not in name)


def _by_rows(outs: Sequence[torch.Size], *, is_upper: bool) -> Relation:
    def forward(parts: Parts) -> list[Tensor | None]:
        known = [part.amax(-1, keepdim=True) for part in parts if part is not None]
        whole = known[0] if len(known) == 1 else torch.maximum(*known)
        whole = whole.flip(-2).cummax(-2).values.flip(-2) if is_upper else whole.cummax(-2).values
        return [whole.expand(shape) for shape in outs]

    return Relation(forward, covers=True)


def _product(left: Tensor | None, right: Tensor | None, shape: torch.Size) -> Relation:
    """Rows and columns of two matrices, of which zeros are known; a tensor may be added."""

    def forward(parts: Parts) -> list[Tensor | None]:
        *added, rows, columns = parts
        found = [part for part in added if part is not None]
        found += [] if rows is None else [_through(rows, right)]
        found += [] if columns is None else [_through(columns.mT, None if left is None else left.mT).mT]
        whole = found[0].expand(shape)
        for part in found[1:]:
            whole = torch.maximum(whole, part)
        return [whole.expand(shape)]

    return Relation(forward, covers=left is None and right is None)


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


def _convolved(node: Node, labels: Labels, outs: Sequence[torch.Size]) -> Relation | None:
    """Entries under the taps of a kernel of one dimension, in a group of channels."""
    stride, padding, dilation, groups = (node.argument(name) for name in ("stride", "padding", "dilation", "groups"))
    (_, given), *others = node.inputs
    fixed = given in labels.of and not any(number in labels.of for _, number in others)
    if len(padding) > 1 or stride[0] != 1 or node.argument("transposed") or not fixed:
        return None
    taps = labels.values[others[0][1]].shape[-1]

    def forward(parts: Parts) -> list[Tensor | None]:
        part: Any = parts[0]
        by_group = part.reshape(*part.shape[:-2], groups, -1, part.shape[-1]).amax(-2).float()
        padded = functional.pad(by_group, (padding[0], padding[0]))
        pooled = functional.max_pool1d(padded, taps, 1, 0, dilation[0]).to(part.dtype)
        return [pooled.repeat_interleave(outs[0][-2] // groups, -2)]

    return Relation(forward)


def _hidden(node: Node, labels: Labels) -> list[Tensor | None]:
    """For each argument of an operation by entries, where the result does not depend on it."""
    ids, values = [number for _, number in node.inputs], labels.values
    if node.name in ("mul", "div") and len(ids) == 2:
        return [None if node.name == "div" else labels.zeros(ids[1]), labels.zeros(ids[0])]
    if node.name in ("add", "sub") and len(ids) == 2:
        # A blank score that is hidden stays so, whatever is added.
        real = [not values[one].is_complex() for one in ids]
        return [labels.fixed(one, lambda value: value <= _HIDDEN) if all(real) else None for one in reversed(ids)]
    if node.name in ("where", "masked_fill"):
        by = 0 if node.name == "where" else 1
        (mask,) = (one for slot, one in node.inputs if slot == by)
        if mask not in labels.of:
            chosen = values[mask]
            return [None if slot == by else ~chosen if slot == by + 1 else chosen for slot, _ in node.inputs]
        # What is the same either way, as a score that is hidden, does not depend on the choice.
        first, *second = (one for slot, one in node.inputs if slot != by)
        same: Tensor | None = values[first] == (values[second[0]] if second else node.argument("value"))
        for one in (first, *second):
            given = same
            same = None if given is None else labels.fixed(one, lambda _, given=given: given)
        return [same] * len(ids)
    return [None] * len(ids)
