"""Random operators beside T itself, which is computed from the same tensors by the definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from oracles import exact
from oracles.exact import Spectra

import statesize as ss
from campaigns.fuzz.arguments import number, real, whole
from campaigns.fuzz.hostile import Source
from statesize import operators


@dataclass
class Case:
    """An operator that is not made yet.

    Attributes:
        make: Calls the constructor.
        define: T in 80-bit numbers, from the same tensors.
        length: L.
        names: Arguments of the constructor: an error must name one of them, or what stands for them.
        wrong: Whether the constructor must refuse.
        rounding: How far an entry of T in float64 may be from the exact one, in units of itself, beside round-off.
        terms: How large numbers an entry of T may be summed of, which cancel.
    """

    make: Callable[[], ss.Operator]
    define: Callable[[], np.ndarray]
    length: int
    names: tuple[str, ...]
    wrong: bool = False
    rounding: Callable[[], float] = float
    terms: Callable[[], float] = float
    _T: np.ndarray | None = None

    @property
    def T(self) -> np.ndarray:
        """T, (..., L, L)."""
        if self._T is None:
            with np.errstate(all="ignore"):
                self._T = self.define()
        return self._T

    def spectra(
        self, positions: list[int], past: int | None = None, future: int | None = None, engine: str = ""
    ) -> Spectra | None:
        """Those of T at some positions; None where T or its norm overflows float64.

        Engines that form T of a recurrence know its entries to eps times what these are summed of.
        """
        size = np.abs(self.T).max(initial=0)
        if not size <= exact.LARGEST / self.length:
            return None
        formed = any(name in engine for name in ("dense", "exact", "all_cuts"))
        lost = 64 * exact.EPS * self.length**2 * self.terms() if formed else 0.0
        return exact.spectra(self.T, positions, past, future, self.rounding(), lost)


def random_case(source: Source, kind: str | None = None) -> Case:
    """A random operator, now and then one that cannot be made."""
    kind = kind or source.chance.choice(list(KINDS))
    case = KINDS[kind](source)
    case.wrong |= source.poisoned
    return case


def _batches(source: Source, count: int) -> list[tuple[int, ...]]:
    """Batch shapes of equal rank, 1 here and there where they broadcast."""
    whole = source.batch()
    shapes = [tuple(1 if size and source.maybe(0.15) else size for size in whole) for _ in range(count)]
    return [whole, *shapes[1:]]


def _causal(source: Source, length: int) -> tuple[torch.Tensor, bool]:
    """T, (..., L, L), and whether it must be refused."""
    matrix = source.tensor(*source.batch(), length, length)
    wrong = False
    numbers = matrix.dtype.is_floating_point and matrix.layout == torch.strided and not matrix.is_meta
    if numbers and not source.maybe(0.05):
        # A leaf stays one only if it is made causal itself.
        matrix = matrix.detach().tril().requires_grad_(matrix.requires_grad)
        source.tensors[-1] = matrix
        source.poisoned = not bool(torch.isfinite(matrix.detach()).all())
    else:
        wrong = source.poisoned or bool(matrix.detach().triu(1).any())
    return matrix, wrong


def _dense(source: Source) -> Case:
    length = source.whole(2, 24)
    matrix, wrong = _causal(source, length)
    return Case(lambda: ss.Dense(matrix), lambda: exact.wide(matrix), length, ("matrix",), wrong)


def _block_dense(source: Source) -> Case:
    """One input and one output, so that T is (..., L, L)."""
    length = source.whole(2, 24)
    matrix, wrong = _causal(source, length)
    ports = matrix[..., None, :, None] if matrix.layout == torch.strided else matrix
    return Case(lambda: operators.BlockDense(ports), lambda: exact.wide(matrix), length, ("matrix",), wrong)


def _recurrence(source: Source) -> Case:
    length, states = source.whole(2, 24), source.whole(1, 7)
    form = source.chance.choice(("scalar", "diagonal", "full", "complex"))
    batches = _batches(source, 4)
    tail: tuple[int, ...] = {"scalar": (1,), "full": (states, states)}.get(form, (states,))
    complex_ = form == "complex"
    A = source.tensor(*batches[1], length, *tail, decay=form != "full", complex_=complex_)
    A = _shrunk(source, A, states) if form == "full" else A
    B = source.tensor(*batches[0], length, states, complex_=complex_)
    C = source.tensor(*batches[2], length, states, complex_=complex_)
    D = source.tensor(*batches[3], source.chance.choice((1, length))) if source.maybe(0.2) else None
    wrong = D is not None and D.is_complex()
    return Case(
        lambda: ss.Recurrence(A, B, C, D),
        lambda: exact.recurrence(A, B, C, D),
        length,
        ("A", "B", "C", "D"),
        wrong,
        terms=lambda: exact.largest(B) * exact.largest(C) * states,
    )


def _shrunk(source: Source, A: torch.Tensor, states: int) -> torch.Tensor:
    """The transitions drawn last, scaled so that their products do not overflow."""
    if not A.is_floating_point() or source.poisoned or not A.numel() or A.requires_grad:
        return A
    source.tensors[-1] = A / max(1.0, float(A.abs().max())) * (1.2 / states**0.5)
    return source.tensors[-1]


def _state_space(source: Source) -> Case:
    """One input and one output, so that T is (..., L, L)."""
    steps, states = source.whole(2, 24), source.whole(1, 5)
    length = steps if source.maybe(0.5) else None
    lead = () if length is not None else (steps,)
    batches = _batches(source, 4)
    A = _shrunk(source, source.tensor(*batches[0], *lead, states, states), states)
    B = source.tensor(*batches[1], *lead, states, 1)
    C = source.tensor(*batches[2], *lead, 1, states)
    D = source.tensor(*batches[3], *lead, 1, 1)
    return Case(
        lambda: ss.StateSpace(A, B, C, D, length=length),
        lambda: exact.state_space(A, B, C, D, length),
        steps,
        ("A", "B", "C", "D", "length"),
        terms=lambda: exact.largest(B) * exact.largest(C) * states,
    )


def _delta(source: Source) -> Case:
    length, states = source.whole(2, 24), source.whole(1, 7)
    batches = _batches(source, 4)
    key, query = (source.tensor(*batch, length, states) for batch in batches[:2])
    beta = source.tensor(*batches[2], length, decay=True)
    decay = source.tensor(*batches[3], length, *source.chance.choice(((), (states,), (1,))), decay=True)
    return Case(
        lambda: ss.Recurrence.delta_rule(key, beta, query, decay),
        lambda: exact.delta_rule(key, beta, query, decay),
        length,
        ("key", "beta", "query", "decay"),
        terms=lambda: exact.largest(key) * exact.largest(key) * exact.largest(beta) * exact.largest(query) * states,
    )


def _convolution(source: Source) -> Case:
    length: Any = source.whole(2, 24)
    kernel = source.tensor(*source.batch(), source.whole(1, 30))
    asked = source.no_number() if source.maybe(0.03) else length
    wrong = not whole(asked, 1, 2**31 - 1)
    length = length if wrong else int(asked)
    return Case(
        lambda: ss.Convolution(kernel, asked),
        lambda: exact.convolution(kernel, length),
        length,
        ("kernel", "length"),
        wrong,
    )


def _attention(source: Source) -> Case:
    length, width = source.whole(2, 24), source.whole(1, 8)
    query, key = (source.tensor(*batch, length, width) for batch in _batches(source, 2))
    wrong = query.dtype != key.dtype
    scale: Any = source.chance.choice((width**-0.5, 1, 0.0, -2.0, 30.0))
    window: Any = source.chance.choice((None, None, 1, 2, length, length + 3))
    if source.maybe(0.03):
        scale = source.no_number()
        wrong |= not real(scale)
        source.extreme |= not wrong and abs(number(scale)) > 1e30
    asked = window
    if source.maybe(0.03):
        asked = source.no_number()
        wrong |= asked is not None and not whole(asked, 1, 2**63 - 1)
        window = int(asked) if whole(asked, 1, 2**63 - 1) else None
    return Case(
        lambda: ss.SoftmaxAttention(query, key, scale, asked),
        lambda: exact.attention(query, key, number(scale), window),
        length,
        ("query", "key", "scale", "window"),
        wrong,
        lambda: exact.softmax_rounding(query, key, number(scale)),
    )


def _misshapen(source: Source) -> Case:
    """Tensors of shapes that do not fit: one dimension more or less, another length, size 0."""
    length, states = source.whole(2, 9), source.whole(1, 4)

    def odd(*shape: int) -> torch.Tensor:
        sizes = list(shape)
        for _ in range(source.whole(0, 3)):
            change = source.chance.choice(("more", "less", "other", "empty"))
            place = source.chance.randrange(len(sizes)) if sizes else 0
            if change == "more":
                sizes.insert(place, source.whole(0, 3))
            elif sizes and change == "less":
                sizes.pop(place)
            elif sizes:
                sizes[place] = 0 if change == "empty" else sizes[place] + source.chance.choice((-1, 1, 2))
        return source.tensor(*(max(0, size) for size in sizes))

    vectors = [odd(length, states) for _ in range(3)]
    rows = [odd(length) for _ in range(2)]
    makers: list[tuple[Callable[[], ss.Operator], Callable[[], np.ndarray], tuple[str, ...], list[torch.Tensor]]] = [
        (lambda: ss.Dense(vectors[0]), lambda: exact.wide(vectors[0]), ("matrix",), vectors[:1]),
        (
            lambda: ss.Recurrence(*vectors, rows[0]),
            lambda: exact.recurrence(*vectors, rows[0]),
            ("A", "B", "C", "D"),
            [*vectors, rows[0]],
        ),
        (
            lambda: ss.Recurrence.delta_rule(vectors[0], rows[0], vectors[1], rows[1]),
            lambda: exact.delta_rule(vectors[0], rows[0], vectors[1], rows[1]),
            ("key", "beta", "query", "decay"),
            [*vectors[:2], *rows],
        ),
        (
            lambda: ss.SoftmaxAttention(vectors[0], vectors[1], 1.0),
            lambda: exact.attention(vectors[0], vectors[1], 1.0, None),
            ("query", "key"),
            vectors[:2],
        ),
    ]
    make, define, names, used = source.chance.choice(makers)
    source.poisoned = not all(map(_usable, used))
    source.extreme = True  # Whether it fits by luck is not told here: an error is allowed, a wrong answer is not.
    softmax = names == ("query", "key")
    rounding = (lambda: exact.softmax_rounding(vectors[0], vectors[1], 1.0)) if softmax else float
    return Case(make, define, length, names, rounding=rounding)


def _usable(tensor: torch.Tensor) -> bool:
    """Whether an operator may be made of a tensor of this kind."""
    if tensor.layout != torch.strided or tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    return bool(torch.isfinite(tensor.detach()).all())


KINDS: dict[str, Callable[[Source], Case]] = {
    "Dense": _dense,
    "BlockDense": _block_dense,
    "Recurrence": _recurrence,
    "StateSpace": _state_space,
    "delta_rule": _delta,
    "Convolution": _convolution,
    "SoftmaxAttention": _attention,
    "misshapen": _misshapen,
}
