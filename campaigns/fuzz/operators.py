"""Random operators beside T itself, which is computed from the same tensors by the definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st
from oracles import exact
from oracles.exact import Spectra
from torch import Tensor

import statesize as ss
from statesize import operators

DTYPES = st.sampled_from([torch.float64] * 3 + [torch.float32, torch.float16, torch.bfloat16])
BATCHES = st.sampled_from([(), (), (1,), (2,), (3,), (2, 2), (1, 3), (0,), (2, 0)])
Parts = dict[str, Tensor]
Shapes = dict[str, tuple[tuple[int, ...], str]]


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


NUMBERS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "normal": lambda normal, _: normal,
    "zeros": lambda normal, _: torch.zeros_like(normal),
    "equal": lambda normal, _: torch.full_like(normal, 1 / 3),
    "repeated": lambda normal, _: normal[..., :1].expand(normal.shape),
    "graded": lambda normal, chance: normal * 10 ** (-16 * torch.rand(normal.shape, generator=chance).double()),
    "sparse": lambda normal, chance: normal * (torch.rand(normal.shape, generator=chance) < 0.2),
    "large": lambda normal, _: normal * 1e6,
    "small": lambda normal, _: normal * 1e-20,
}
"""Numbers that an operator is made of."""


def _strided(tensor: Tensor) -> Tensor:
    wider = tensor.new_empty((*tensor.shape[:-1], 3 * tensor.shape[-1]))
    wider[..., ::3] = tensor
    return wider[..., ::3]


def _of_inference(tensor: Tensor) -> Tensor:
    with torch.inference_mode():
        return tensor.clone()


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda tensor: tensor,
    "strided": _strided,
    "transposed": lambda tensor: tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor,
    "offset": lambda tensor: torch.cat([tensor.new_zeros(7), tensor.reshape(-1)])[7:].view(tensor.shape),
    "conjugated": lambda tensor: tensor.conj().resolve_conj().conj(),
    "leaf": lambda tensor: tensor.detach().clone().requires_grad_(),
    "inference": _of_inference,
}
"""How these lie in memory."""


@dataclass(frozen=True)
class Kind:
    """A constructor: the tensors that it takes, T by the definition, and what float64 loses of it.

    Attributes:
        shapes: The shape of each tensor behind its batch dimensions, and its style, by length and states.
        make: Calls the constructor.
        define: T in 80-bit numbers.
        terms: How large numbers an entry of T may be summed of, which cancel.
        rounding: How far an entry of T in float64 may be from the exact one, in units of itself, beside round-off.
    """

    shapes: Callable[[int, int], Shapes]
    make: Callable[[Parts, int], ss.Operator]
    define: Callable[[Parts, int], np.ndarray]
    terms: Callable[[Parts], float] = lambda parts: 0.0
    rounding: Callable[[Parts], float] = lambda parts: 0.0

    @classmethod
    def recurrence(cls, decay: Callable[[int, int], tuple[int, ...]], style: str, *, feed: bool = False) -> Kind:
        """A recurrence whose decays have a shape."""

        def shapes(length: int, states: int) -> Shapes:
            other = "complex" if style == "complex" else ""
            found = {
                "A": (decay(length, states), style),
                "B": ((length, states), other),
                "C": ((length, states), other),
            }
            return found | ({"D": ((length,), "")} if feed else {})

        return cls(
            shapes,
            lambda parts, _: ss.Recurrence(**parts),
            lambda parts, _: exact.recurrence(**{"D": None, **parts}),
            _largest("B", "C"),
        )

    @classmethod
    def state_space(cls, *, constant: bool) -> Kind:
        """A state space of one input and one output."""

        def shapes(length: int, states: int) -> Shapes:
            lead = () if constant else (length,)
            sizes = {"A": (states, states), "B": (states, 1), "C": (1, states), "D": (1, 1)}
            return {name: ((*lead, *size), "contracting" if name == "A" else "") for name, size in sizes.items()}

        return cls(
            shapes,
            lambda parts, length: ss.StateSpace(**parts, length=length if constant else None),
            lambda parts, length: exact.state_space(**parts, length=length if constant else None),
            _largest("B", "C"),
        )

    @classmethod
    def attention(cls, scale: float, window: int | None) -> Kind:
        """Softmax attention."""
        return cls(
            lambda length, width: {"query": ((length, width), "alike"), "key": ((length, width), "alike")},
            lambda parts, _: ss.SoftmaxAttention(**parts, scale=scale, window=window),
            lambda parts, _: exact.attention(**parts, scale=scale, window=window),
            rounding=lambda parts: exact.softmax_rounding(**parts, scale=scale),
        )


def _largest(*names: str) -> Callable[[Parts], float]:
    return lambda parts: math.prod(exact.largest(parts[name]) for name in names) * parts[names[0]].shape[-1]


def _matrix(length: int, _: int) -> Shapes:
    return {"matrix": ((length, length), "causal")}


def _of_matrix(parts: Parts, _: int) -> np.ndarray:
    return exact.wide(parts["matrix"])


def _delta(length: int, states: int) -> Shapes:
    vectors = {"key": ((length, states), ""), "query": ((length, states), "")}
    return vectors | {"beta": ((length,), "decay"), "decay": ((length, states), "decay")}


KINDS = {
    "Dense": Kind(_matrix, lambda parts, _: ss.Dense(**parts), _of_matrix),
    "BlockDense": Kind(_matrix, lambda parts, _: operators.BlockDense(parts["matrix"][..., None, :, None]), _of_matrix),
    "recurrence": Kind.recurrence(lambda length, states: (length, states), "decay", feed=True),
    "scalar recurrence": Kind.recurrence(lambda length, _: (length, 1), "decay"),
    "complex recurrence": Kind.recurrence(lambda length, states: (length, states), "complex"),
    "full recurrence": Kind.recurrence(lambda length, states: (length, states, states), "contracting"),
    "state space": Kind.state_space(constant=False),
    "constant state space": Kind.state_space(constant=True),
    "delta rule": Kind(
        _delta,
        lambda parts, _: ss.Recurrence.delta_rule(**parts),
        lambda parts, _: exact.delta_rule(**parts),
        lambda parts: _largest("key", "key", "query")(parts) * exact.largest(parts["beta"]),
    ),
    "convolution": Kind(
        lambda length, states: {"kernel": ((3 * states,), "")},
        lambda parts, length: ss.Convolution(**parts, length=length),
        lambda parts, length: exact.convolution(**parts, length=length),
    ),
    **{
        f"attention, scale {scale:g}, window {window}": Kind.attention(scale, window)
        for scale, window in ((0.5, None), (1.0, 2), (-2.0, None), (30.0, 5), (0.0, None))
    },
}


@dataclass(frozen=True, eq=False)
class Case:
    """An operator that is not made yet.

    Attributes:
        kind: Its constructor.
        parts: What it is made of.
        length: L.
        T: By the definition, (..., L, L).
    """

    kind: Kind
    parts: Parts
    length: int
    T: np.ndarray

    def make(self) -> ss.Operator:
        """The operator."""
        return self.kind.make(self.parts, self.length)

    @property
    def rounding(self) -> float:
        """How far an entry of T in float64 may be from the exact one, in units of itself, beside round-off."""
        return self.kind.rounding(self.parts)

    @property
    def terms(self) -> float:
        """How large numbers an entry of T may be summed of, which cancel."""
        return self.kind.terms(self.parts)

    def spectra(
        self, positions: list[int], past: int | None = None, future: int | None = None, engine: str = "dense"
    ) -> Spectra:
        """Those of T at some positions, for an engine."""
        # Engines that form T of a recurrence know its entries to eps times what these are summed of.
        formed = any(name in engine for name in ("dense", "exact", "all_cuts"))
        lost = 64 * exact.EPS * self.length**2 * self.terms if formed else 0.0
        return exact.spectra(self.T, positions, past, future, self.rounding, lost)


@st.composite
def cases(draw: Any, kinds: tuple[str, ...] = tuple(KINDS)) -> Case:
    """An operator of any kind, batch, numbers, dtype and layout, whose T is far from the limits of float64."""
    kind, length = KINDS[draw(st.sampled_from(kinds))], draw(st.integers(2, 24))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    batch, dtype, parts = draw(BATCHES), draw(DTYPES), dict[str, Tensor]()
    # Torch refuses to take gradients where there are tensors of inference.
    left_out = draw(st.sampled_from(["leaf", "inference"]))
    layouts = [name for name in LAYOUTS if name != left_out]
    for place, (name, (shape, style)) in enumerate(kind.shapes(length, draw(st.integers(1, 7))).items()):
        # One batch dimension in six is 1 where it broadcasts.
        some = tuple(1 if place and size and draw(st.integers(0, 5)) == 5 else size for size in batch)
        numbers = NUMBERS[draw(st.sampled_from([*NUMBERS]))](_normal((*some, *shape), generator), generator)
        numbers = _STYLES.get(style, lambda part: part)(numbers)
        own = dtype if style == "alike" else draw(st.sampled_from([dtype, torch.float64]))
        if numbers.is_complex():
            own = torch.complex64 if own is torch.float32 else torch.complex128
        parts[name] = LAYOUTS[draw(st.sampled_from(layouts))](numbers.to(own))
        assume(bool(parts[name].detach().isfinite().all()))
    with np.errstate(all="ignore"):
        T = kind.define(parts, length)
    assume(bool((np.abs(T) < 1e100).all()))
    return Case(kind, parts, length, T)


_STYLES: dict[str, Callable[[Tensor], Tensor]] = {
    "causal": torch.tril,
    "decay": torch.sigmoid,
    "complex": lambda part: torch.polar(part.abs().clamp(max=1), part),
    "contracting": lambda part: (
        part / part.abs().amax((-2, -1), keepdim=True).clamp(min=1) / part.shape[-1] ** 0.5 if part.numel() else part
    ),
}
