"""The first and the last position that every entry of a run depends on, by the structure of each operation alone."""

# Labels are numbers of which the largest counts, and 0 stands for none: unions are maxima.

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.trace.linear import SHAPES
from statesize.adapters.trace.tape import Node, Tape

Parts = Sequence[Any]
"""Of the tensors that an operation takes one number of the label of each entry; None for one without a label."""
# Copies of entries to other places: by the arguments that they come from; the others say which.
_MOVES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys("view permute transpose t slice select unsqueeze squeeze split split_with_sizes".split(), (0,)),
    **dict.fromkeys("unbind diagonal _unsafe_view expand cat stack flip roll repeat tril triu".split(), (0,)),
    **dict.fromkeys("unfold diag_embed constant_pad_nd index index_select gather read".split(), (0,)),
    **dict.fromkeys("_reshape_alias rot90".split(), (0,)),
    **dict.fromkeys("take masked_select reflection_pad1d replication_pad1d unsafe_split embedding".split(), (0,)),
    **dict.fromkeys("slice_scatter select_scatter diagonal_scatter as_strided_scatter".split(), (0, 1)),
    **dict.fromkeys(("index_put", "masked_scatter"), (0, 2)),
    **dict.fromkeys(("scatter", "index_copy"), (0, 3)),
}  # fmt: skip
_CUMULATIVE = frozenset("cumsum cumprod logcumsumexp cummax cummin".split())
_NORMS = frozenset("native_layer_norm _fused_rms_norm".split())
_ALONG = frozenset(
    "sum mean amax amin max min logsumexp prod var std linalg_vector_norm norm any all argmax argmin var_mean nansum "
    "count_nonzero median _softmax _log_softmax _safe_softmax sort topk kthvalue mode std_mean view_as_complex "
    "_fft_r2c _fft_c2c _fft_c2r".split()
).union(_CUMULATIVE, _NORMS)
"""What takes a tensor along dimensions."""
_POINTWISE = frozenset(
    "clone _to_copy alias detach lift_fresh _conj _neg_view conj_physical native_dropout log_sigmoid_forward where "
    "lerp copy fill".split()
)
_PRODUCTS = frozenset("mm bmm addmm baddbmm mv dot vdot addmv".split())
_HIDDEN = -3e4
"""What is added to scores to hide them: a softmax makes 0 of them."""
_LARGEST_PRODUCT = 1 << 26


class Label(NamedTuple):
    """Of each entry the last position plus 1, and L less the first one; 0 for none: unions are maxima of both."""

    last: Tensor
    first: Tensor

    def of_the_last(self, length: int) -> Label:
        """The label where each entry counts as of the last position alone that it depends on."""
        return Label(self.last, (length + 1 - self.last).masked_fill(self.last == 0, 0))


def own(shape: torch.Size, axis: int, length: int) -> Label:
    """The label of a tensor each entry of which depends on its own position."""
    view = [-1 if dim == axis % len(shape) else 1 for dim in range(len(shape))]
    last = torch.arange(1, length + 1, dtype=torch.int16 if length < 1 << 14 else torch.int32)
    return Label(last.view(view).expand(shape), last.flip(0).view(view).expand(shape))


def ahead(label: Label, axis: int, length: int) -> Tensor:
    """By how many positions the last one that entries depend on lies behind their own, (L,)."""
    later = label.last - own(label.last.shape, axis, length).last
    return later.movedim(axis, 0).reshape(later.shape[axis], -1).amax(1)


def placed(label: Label, length: int) -> tuple[int, int] | None:
    """The dimension along which the last position that entries depend on is their own, and how many come before.

    Returns:
        Both; None where there is no such dimension. Entries around the text, as of a learned prefix, depend on none.
    """
    for axis, size in enumerate(label.last.shape):
        if not length <= size <= 2 * length:
            continue
        line = label.last.movedim(axis, 0).reshape(size, -1).amax(1)
        first = int((line == 1).int().argmax())
        if first + length > size or bool(line[:first].any()) or bool(line[first + length :].any()):
            continue
        part = label.last.narrow(axis, first, length)
        if bool(((part == own(part.shape, axis, length).last) | (part == 0)).all()) and bool(part.any()):
            return axis, first
    return None


def width(label: Label | None, length: int) -> int:
    """How many positions lie between the first and the last one that an entry depends on, at most."""
    if label is None or not label.last.numel():
        return 0
    return max(0, int((label.last + label.first).max()) - length - 1)


def distance(label: Label | None, axis: int, length: int) -> int:
    """How far from its own position on an axis an entry depends on others, at most."""
    if label is None:
        return 0
    at = own(label.last.shape, axis, length)
    far = torch.maximum(label.last - at.last, label.first - at.first)
    return max(0, int(far.masked_fill(label.last == 0, 0).max()))


@dataclass(frozen=True, eq=False, slots=True)
class Relation:
    """What depends on what in one operation."""

    # Makes a part of the labels of what it returns: one that is expanded to all these tensors, or one for each.
    forward: Callable[[Parts], Tensor | list[Tensor] | None]
    is_exact: bool = True  # whether these say no more than what depends on what
    moves: bool = False  # whether each entry that it returns is one of those that it takes


class Labels:
    """Labels of the tensors of a run."""

    def __init__(
        self, tape: Tape, length: int, given: Mapping[int, Label | None], choices: Labels | None = None
    ) -> None:
        # choices: Labels of the whole run, where what is chosen by numbers, as by topk, is taken as the run took it.
        self.tape, self.values, self.length, self.choices = tape, tape.values, length, choices
        self.of = {tensor: label for tensor, label in given.items() if label is not None}  # by tensor
        self.relations = dict[Node, Relation]()  # of each operation that takes such a tensor
        self.has_choices = False  # whether anything is chosen by numbers
        self.given = given
        self._run()

    def fixed(self, tensor: int, condition: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Where the numbers of a tensor are such whatever the text is; None for nowhere."""
        label, found = self.of.get(tensor), condition(self.values[tensor])
        found = found if label is None else found & (label.last == 0)
        return found if bool(found.any()) else None

    def zeros(self, tensor: int) -> Tensor | None:
        """Where a tensor is 0 whatever the text is; None for nowhere."""
        # A choice that is 0 here is another one for another text.
        return (self.choices or self).fixed(tensor, lambda value: value == 0)

    def position(self, tensor: int) -> int | None:
        """The last position plus 1 of all entries of a tensor that depend on the text; 0 for none, None for several."""
        label = self.of.get(tensor)
        if label is None or not label.last.numel():
            return 0
        last = label.last.max()
        return int(last) if bool(((label.last == last) | (label.last == 0)).all()) else None

    def moves(self, node: Node) -> bool:
        """Whether an operation returns entries of what it takes at other places."""
        found = self.relations.get(node)
        return found is not None and found.moves

    def _run(self) -> None:
        for node in self.tape.nodes:
            if not any(tensor in self.of for _, tensor in node.inputs):
                continue
            found = self.relations[node] if node in self.relations else relation(node, self)
            if found is None:
                continue
            self.relations[node] = found
            for out, label in zip(
                node.outs, self.made(node, [self.of.get(number) for _, number in node.inputs]), strict=True
            ):
                is_choice = not (self.values[out].is_floating_point() or self.values[out].is_complex())
                self.has_choices |= is_choice
                if label is not None and out not in self.given and (self.choices is None or not is_choice):
                    self.of[out] = label

    def made(self, node: Node, given: Sequence[Label | None]) -> list[Label | None]:
        """Labels of what an operation returns, of those of what it takes."""
        count, parts = len(node.outs), list[Parts]()
        for which in (0, 1) if any(label is not None for label in given) else ():
            found = self.relations[node].forward([label and label[which] for label in given])
            parts.append(found if isinstance(found, list) else [found] * count)
        shapes = (self.values[out].shape for out in node.outs)
        return [
            None if last is None or first is None else Label(last.expand(shape), first.expand(shape))
            for last, first, shape in zip(*(parts or [[None] * count] * 2), shapes, strict=True)
        ]

    def without(self, tensors: Collection[int]) -> Labels:
        """Labels of a run in which some tensors do not depend on the text."""
        other = copy.copy(self)
        other.given = {**self.given, **dict.fromkeys(tensors)}
        other.of = {tensor: label for tensor, label in other.given.items() if label is not None}
        other._run()
        return other


def relation(node: Node, labels: Labels) -> Relation | None:
    """What depends on what in an operation; None for nothing."""
    name, ids, of, values = node.name, [number for _, number in node.inputs], labels.of, labels.values
    if name in SHAPES or not (ids and node.outs) or (name == "mul" and 0 in node.args):
        return None
    shapes = [values[number].shape for number in ids]
    if name == "view_as_real" or (name == "embedding" and ids[1] in of and ids[0] not in of):
        # Pairs follow from complex numbers, rows of a table from ids.
        return Relation(lambda parts: parts[-1].unsqueeze(-1))
    if name in ("scatter_add", "index_add") and ids[1] not in of and node.argument("alpha") in (None, 1):
        return _added(node.argument("dim"), values[ids[1]], values[node.outs[0]].shape)
    if name in _MOVES:
        chooses = any(slot not in _MOVES[name] and number in of for slot, number in node.inputs)
        adds = node.schema and (node.argument("accumulate") or (name == "scatter" and node.argument("reduce")))
        # Otherwise the places are chosen by the text.
        return Relation(_everything, is_exact=False) if chooses or adds else _moved(node, labels)
    found = None
    if name in _PRODUCTS and min(len(shapes[-1]), len(shapes[-2])) > 1:
        return _product(labels.zeros(ids[-2]), labels.zeros(ids[-1]))
    if name == "convolution":
        found = _convolved(node, labels)
    elif name in _ALONG and [number in of for number in ids].count(True) == 1 and ids[0] in of and shapes[0]:
        found = _along(node, labels)
    elif name == "linalg_solve_triangular" and node.argument("left"):
        # Arguments: A, B. Each row follows from those before it, of an upper matrix from those behind it.
        found = _by_rows(is_upper=bool(node.argument("upper")))
    elif name in _POINTWISE or torch.Tag.pointwise in getattr(node.func, "tags", ()):
        found = _pointwise(_hidden(node, labels))
    return found or Relation(_everything, is_exact=False)


def _largest(parts: Iterable[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return reduce(torch.maximum, known) if known else None


def _everything(parts: Parts) -> Tensor | None:
    """Everything depends on everything: what is not known better."""
    return _largest(part.max() for part in parts if part is not None and part.numel())


def _added(dim: int, places: Tensor, shape: torch.Size) -> Relation:
    """Entries of one tensor added to those of another one at places, of which several may be the same."""

    def forward(parts: Parts) -> Tensor:
        base, added = parts[0], parts[-1]
        if added is None:
            return base
        index = places
        if index.ndim == 1 < added.ndim:
            index = index.view([-1 if at == dim % added.ndim else 1 for at in range(added.ndim)]).expand(added.shape)
        whole = added.new_zeros(shape) if base is None else base.clone(memory_format=torch.contiguous_format)
        return whole.scatter_reduce_(dim, index, added.contiguous(), "amax")

    return Relation(forward)


def _moved(node: Node, labels: Labels) -> Relation:
    """Entries at other places."""
    values, slots = labels.values, _MOVES[node.name]

    def forward(parts: Parts) -> list[Tensor]:
        like, following = next(part for part in parts if part is not None), iter(range(len(parts)))

        def taken(number: int) -> Tensor:
            at = next(following)
            if node.inputs[at][0] not in slots:
                return values[number]
            return like.new_zeros(()).expand(values[number].shape) if parts[at] is None else parts[at]

        return node.call(taken)

    return Relation(forward, moves=True)


def _pointwise(hidden: Sequence[Tensor | None]) -> Relation:
    """Entries of the same place, after broadcasting; `hidden` says for each tensor where nothing depends on it."""
    seen = [(at, hides) for at, hides in enumerate(hidden) if hides is None or not bool(hides.all())]

    def forward(parts: Parts) -> Tensor | None:
        known = ((part, hides) for at, hides in seen if (part := parts[at]) is not None)
        return _largest(part if hides is None else part.masked_fill(hides, 0) for part, hides in known)

    return Relation(forward)


def _along(node: Node, labels: Labels) -> Relation:
    """Entries along dimensions of the first tensor: all, or those up to the same place."""
    (_, number), *_ = node.inputs
    shape, name, dim, out = labels.values[number].shape, node.name, node.argument("dim"), labels.values[node.outs[0]]
    if name in _NORMS:
        dim = tuple(range(-len(node.argument("normalized_shape")), 0))
    elif dim is None and name in ("sort", "topk", "kthvalue", "view_as_complex"):
        dim = -1
    if name in _CUMULATIVE:
        return Relation(lambda parts: parts[0].cummax(dim).values)
    dims = tuple(range(len(shape))) if dim is None or dim == [] else dim
    hidden, is_kept = None, out.ndim == len(shape)
    if name in ("_softmax", "_safe_softmax"):
        hidden = labels.fixed(number, lambda _: out == 0)

    def forward(parts: Parts) -> Tensor:
        whole = parts[0].amax(dims, keepdim=is_kept)
        return whole if hidden is None else whole.expand(out.shape).masked_fill(hidden, 0)

    return Relation(forward, is_exact="fft" not in name)


def _by_rows(*, is_upper: bool) -> Relation:
    def forward(parts: Parts) -> Tensor:
        whole: Any = _largest(part.amax(-1, keepdim=True) for part in parts if part is not None)
        return whole.flip(-2).cummax(-2).values.flip(-2) if is_upper else whole.cummax(-2).values

    return Relation(forward)


def _product(left: Tensor | None, right: Tensor | None) -> Relation:
    """Rows and columns of two matrices, of which zeros are known; a tensor may be added."""

    def forward(parts: Parts) -> Tensor | None:
        *added, rows, columns = parts
        by_rows = None if rows is None else _through(rows, right)
        by_columns = None if columns is None else _through(columns.mT, None if left is None else left.mT).mT
        return _largest([*added, by_rows, by_columns])

    return Relation(forward)


def _through(part: Tensor, zeros: Tensor | None) -> Tensor:
    """Labels (…, i, k) of a product with (…, j, k), given those of its factor (…, i, j) and where the other is 0."""
    if zeros is not None and bool((part == part[..., :1, :]).all()):
        part = part[..., :1, :]
    if zeros is None or part.shape[-2] * zeros.numel() > _LARGEST_PRODUCT:
        return part.amax(-1, keepdim=True)
    return part.unsqueeze(-1).masked_fill(zeros.unsqueeze(-3), 0).amax(-2)


def _convolved(node: Node, labels: Labels) -> Relation | None:
    """Entries under the taps of a kernel of one dimension, in a group of channels."""
    stride, padding, dilation, groups = (node.argument(name) for name in ("stride", "padding", "dilation", "groups"))
    (_, given), *others = node.inputs
    fixed = given in labels.of and not any(number in labels.of for _, number in others)
    if len(padding) > 1 or stride[0] != 1 or node.argument("transposed") or not fixed:
        return None
    taps, channels = labels.values[others[0][1]].shape[-1], labels.values[node.outs[0]].shape[-2]

    def forward(parts: Parts) -> Tensor:
        part = parts[0]
        by_group = part.reshape(*part.shape[:-2], groups, -1, part.shape[-1]).amax(-2).float()
        padded = functional.pad(by_group, (padding[0], padding[0]))
        pooled = functional.max_pool1d(padded, taps, 1, 0, dilation[0]).to(part.dtype)
        return pooled.repeat_interleave(channels // groups, -2)

    return Relation(forward)


def _hidden(node: Node, labels: Labels) -> list[Tensor | None]:
    """For each argument of an operation by entries, where the result does not depend on it."""
    ids, values = [number for _, number in node.inputs], labels.values
    if node.name in ("mul", "div") and len(ids) == 2:
        return [None if node.name == "div" else labels.zeros(ids[1]), labels.zeros(ids[0])]
    if node.name in ("add", "sub") and len(ids) == 2:
        # A blank score that is hidden stays so, whatever is added.
        if not any(values[number].is_complex() for number in ids):
            return [labels.fixed(number, lambda value: value <= _HIDDEN) for number in reversed(ids)]
    if node.name in ("where", "masked_fill"):
        by = 0 if node.name == "where" else 1
        (mask,) = (number for slot, number in node.inputs if slot == by)
        if mask not in labels.of:
            chosen = values[mask]
            return [None if slot == by else ~chosen if slot == by + 1 else chosen for slot, _ in node.inputs]
        # What is the same either way, as a score that is hidden, does not depend on the choice.
        first, *second = (number for slot, number in node.inputs if slot != by)
        same: Tensor | None = values[first] == (values[second[0]] if second else node.argument("value"))
        for number in (first, *second):
            same = None if same is None else labels.fixed(number, lambda _, same=same: same)
        return [same] * len(ids)
    return [None] * len(ids)
