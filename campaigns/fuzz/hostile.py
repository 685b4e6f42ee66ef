"""Hostile arguments: tensors of odd values, dtypes and layouts, and things that are no number where one is asked."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WRONG_DTYPES = (torch.int64, torch.int8, torch.uint8, torch.bool)
# Inference tensors may not meet those that take gradients: torch itself refuses that.
LAYOUTS = (
    ("plain", "plain", "transposed", "strided", "offset", "conjugated", "expanded", "leaf"),
    ("plain", "plain", "transposed", "strided", "offset", "conjugated", "expanded", "inference"),
)
NO_NUMBERS: tuple[Any, ...] = (
    None, "3", "auto", b"x", float("nan"), float("inf"), -math.inf, -1, 0, -(10**30), 10**30, 1.5, 1e400, True, False,
    [], [[]], (), {}, object(), 2j, np.float32(2.5), np.int64(3), np.array([]), np.array([1, 2]), torch.tensor(2),
    torch.tensor([1.0]), torch.tensor([]), torch.tensor(float("nan")), torch.tensor(1j), range(0), range(5), int, len,
    "", 10**400, set(), Fraction(1, 3), Decimal("0.25"), np.bool_(True), np.array(2.0), np.array("a"), np.array(True),
    np.complex128(1 + 1j), torch.tensor(True), torch.tensor(0.5, requires_grad=True), torch.empty((), device="meta"),
    torch.eye(2).to_sparse(),
)  # fmt: skip


@dataclass
class Source:
    """All randomness of one call, of its own and never the global one.

    Attributes:
        chance: Python's generator.
        torch: The same for tensors.
        tensors: Every tensor that was handed out, to see afterwards that it is as it was.
        poisoned: Whether something was made that no function may accept.
        extreme: Whether something was made near the limits of its dtype.
        inference: Whether tensors of `torch.inference_mode` are among them, and none that takes gradients.
    """

    chance: random.Random
    torch: torch.Generator
    tensors: list[Tensor] = field(default_factory=list)
    poisoned: bool = False
    extreme: bool = False
    inference: bool = False

    @classmethod
    def of(cls, number: int) -> Source:
        """The source of one call."""
        chance = random.Random(number)  # noqa: S311
        return cls(chance, torch.Generator().manual_seed(chance.getrandbits(62)), inference=chance.random() < 0.2)

    def maybe(self, share: float) -> bool:
        """True with a probability."""
        return self.chance.random() < share

    def whole(self, low: int, high: int) -> int:
        """A whole number, mostly small, ends included."""
        return min(high, low + int(self.chance.expovariate(3 / max(1, high - low)))) if high > low else low

    def no_number(self) -> Any:
        """Something where a number is asked; some of them are good numbers after all."""
        return self.chance.choice(NO_NUMBERS)

    def batch(self) -> tuple[int, ...]:
        """A batch shape, empty ones and empty dimensions among them."""
        return self.chance.choice([(), (), (), (1,), (2,), (3,), (2, 2), (1, 3), (0,), (2, 0)])

    def tensor(self, *shape: int, decay: bool = False, complex_: bool = False) -> Tensor:
        """A tensor that an operator may be made of, or with a small probability one that it may not."""
        values = self._values(shape, decay)
        if complex_ and self.maybe(0.9):
            phase = torch.rand(shape, generator=self.torch, dtype=torch.float64) * 2 * math.pi
            values = torch.polar(values.abs(), phase)
        if self.maybe(0.03):
            values = self._poison(values)
        dtype = self.chance.choice(DTYPES) if self.maybe(0.4) else torch.float64
        if values.is_complex():
            dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
        if self.maybe(0.02) and not values.is_complex():
            dtype, self.poisoned = self.chance.choice(WRONG_DTYPES), True
            values = values.nan_to_num().clamp(-5, 5)
        made = self._laid_out(values.to(dtype))
        # What the dtype makes of it: float16 ends at 65504.
        if not self.poisoned:
            self.poisoned = not bool(torch.isfinite(made.detach()).all())
        self.tensors.append(made)
        return made

    def _values(self, shape: tuple[int, ...], decay: bool) -> Tensor:
        normal = torch.randn(shape, generator=self.torch, dtype=torch.float64)
        kind = self.chance.choice(
            ("normal",) * 6 + ("zeros", "ones", "repeated", "graded", "sparse", "scaled", "denormal", "equal")
        )
        if decay and kind == "normal":
            return normal.mul(2).add(2).sigmoid()
        if kind == "zeros":
            return torch.zeros_like(normal)
        if kind == "ones":
            return torch.ones_like(normal)
        if kind == "repeated" and normal.ndim and normal.shape[0]:
            return normal[:1].expand(shape).clone()
        if kind == "graded":
            return normal * 10 ** (-16 * torch.rand(shape, generator=self.torch, dtype=torch.float64))
        if kind == "sparse":
            return normal * (torch.rand(shape, generator=self.torch, dtype=torch.float64) < 0.2)
        if kind == "scaled" and not decay:
            power = self.chance.choice((self.chance.uniform(-8, 8), self.chance.uniform(-300, 300)))
            self.extreme |= abs(power) > 30
            return normal * 10**power
        if kind == "denormal" and not decay:
            self.extreme = True
            return normal * 1e-310
        if kind == "equal":
            return torch.full_like(normal, self.chance.choice((0.5, 1 / 3, 1.0, -1.0)))
        return normal if not decay else normal.sigmoid()

    def _poison(self, values: Tensor) -> Tensor:
        if not values.numel():
            return values
        spoiled = values.clone()
        spoiled.view(-1)[self.chance.randrange(values.numel())] = self.chance.choice((math.nan, math.inf, -math.inf))
        return spoiled

    def _laid_out(self, values: Tensor) -> Tensor:
        layout = self.chance.choice(LAYOUTS[self.inference])
        if self.maybe(0.004) and values.ndim:
            self.poisoned = True
            return values.to_sparse() if self.maybe(0.5) else values.to("meta")
        if layout == "transposed" and values.ndim >= 2:
            return values.mT.contiguous().mT
        if layout == "strided" and values.ndim:
            wider = values.new_empty((*values.shape[:-1], 3 * values.shape[-1]))
            wider[..., ::3] = values
            return wider[..., ::3]
        if layout == "offset":
            flat = torch.cat([values.new_zeros(7), values.reshape(-1)])
            return flat[7:].view(values.shape)
        if layout == "conjugated" and values.is_complex():
            return values.conj().resolve_conj().conj()  # lazily conjugated, the same numbers
        if layout == "expanded" and values.ndim and values.shape[0]:
            return values[:1].expand(values.shape)
        if layout == "leaf" and values.is_floating_point():
            return values.clone().requires_grad_()
        if layout == "inference":
            with torch.inference_mode():
                return values.clone()
        return values
