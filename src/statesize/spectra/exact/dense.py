"""The definition: every singular value of every block, one decomposition per position."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from statesize.operators import Operator, Recurrence, Shared, SoftmaxAttention
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, OUTPUTS, SECONDS, Engine, Footprint
from statesize.spectra.factorisation import singular_values
from statesize.spectra.spectrum import Spectrum, denormal_error


@dataclass(frozen=True)
class DenseEngine(Engine):
    """`torch.linalg.svdvals(T[i:, :i])` in a loop over i; any operator, differentiable.

    Attributes:
        whole: Numbers of T up to which it is formed as a whole, unless the blocks have fewer rows; of a larger one of
            attention, only one block is held.
    """

    whole: int = 2**22

    name = "dense"
    outputs = frozenset(OUTPUTS)
    works_on = (Operator, Shared)
    windows = True
    # Of all singular values.
    copies: ClassVar[int] = 8

    def blocks(self, operator: Operator, cut: Cut) -> Spectrum:
        """The spectrum, r = the largest min(rows, columns); its bound is relative to T as `dense()` returns it."""
        read = self.reader(operator, cut)
        blocks = (read(*cut.reach(position)).unsqueeze(-3) for position in cut.positions)
        empty = torch.zeros((*operator.batch_shape, 0), dtype=operator.dtype, device=operator.device)
        return block_spectra(blocks, cut.limits, empty)

    def reader(
        self, operator: Operator, cut: Cut, convert: Callable[[Tensor], Any] = lambda part: part
    ) -> Callable[[slice, slice], Any]:
        """What gives rows of some positions, and columns, out of T or of the queries and keys that it reads."""
        r = cut.readouts
        if self.forms_whole(cut) or (heads := attention_of(operator)) is None:
            matrix = operator.dense()
            matrix = convert(matrix.flatten(-3, -2) if isinstance(operator, Shared) else matrix)
            return lambda rows, columns: matrix[..., r * rows.start : r * rows.stop, columns]

        def read(rows: slice, columns: slice) -> Any:
            block = heads.block(rows, columns)
            return convert(block.flatten(-3, -2) if isinstance(operator, Shared) else block)

        return read

    def seconds(self, operator: Operator, cut: Cut) -> float:
        """See `Engine.seconds`."""
        sides = [sorted(cut.shape(position)) for position in cut.positions]
        return forming_seconds(operator) + sum(2e-5 + 4e-10 * short**2 * (long + 2 * short) for short, long in sides)

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """T with its copies, or a block with them, and what is computed from all singular values."""
        held = cut.readouts * cut.length**2
        if not self.forms_whole(cut) and attention_of(operator) is not None:
            held = max((rows * columns for rows, columns in map(cut.shape, cut.positions)), default=0)
        return Footprint(DOUBLE * (4 * held + self.copies * len(cut.positions) * cut.largest_rank))

    def forms_whole(self, cut: Cut) -> bool:
        """Whether it makes T itself, of each readout, before it takes anything of it."""
        small = cut.readouts * cut.length**2 <= self.whole
        return small and sum(cut.shape(position)[0] for position in cut.positions) >= cut.readouts * cut.length


def block_spectra(blocks: Iterable[Tensor], limit: Tensor, empty: Tensor) -> Spectrum:
    """`torch.linalg.svdvals` of blocks (..., p, rows, columns) of successive positions, padded to the largest limit.

    Args:
        blocks: They are not empty, and of any shapes.
        limit: min(rows, columns) of each position, (P,).
        empty: (..., 0), which stands for no blocks.

    Returns:
        The spectrum of all positions.
    """
    # The bound of a backward stable decomposition (LAPACK Users' Guide, section 4.9), with the constant
    # 8 √max(rows, columns), relative to the blocks as they are; below the normal numbers no digit is certain.
    values, round_off, r = list[Tensor](), list[float](), int(limit.max()) if limit.numel() else 0
    for block in blocks:
        sigma, longest = singular_values(block), max(block.shape[-2:])
        values.append(torch.nn.functional.pad(sigma, (0, r - sigma.shape[-1])))
        round_off += [8 * longest**0.5 * torch.finfo(block.dtype).eps] * block.shape[-3]
    if not values:
        return Spectrum(empty[..., None], empty, limit)
    joined = torch.cat(values, -2)
    top = joined[..., 0].detach()
    return Spectrum(joined, torch.tensor(round_off, dtype=torch.float64).to(top) * top + denormal_error(top), limit)


def forming_seconds(operator: Operator) -> float:
    """About how long T of a recurrence takes, which is made step by step; that of others takes little."""
    if not isinstance(operator, Recurrence):
        return 0.0
    return SECONDS * operator.length * (1.2e6 + 20 * operator.length * largest_state(operator))


def attention_of(operator: Operator) -> SoftmaxAttention | None:
    """The attention that an operator is, or that all its readouts are."""
    held = operator.operator if isinstance(operator, Shared) else operator
    return held if isinstance(held, SoftmaxAttention) else None


def largest_state(operator: Operator) -> int:
    """The largest theoretical state-size over all positions."""
    return int(operator.state_size().max())
