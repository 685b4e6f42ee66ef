"""Whether the T that a layer declares is what the layer computes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from statesize.adapters.causality import CAUSES
from statesize.adapters.check import Checked
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.observation import random_like
from statesize.adapters.trace.layer import mixing_around
from statesize.adapters.trace.replay import Piece
from statesize.adapters.trace.states import cuts_beyond
from statesize.adapters.trace.trace import Trace, TracedMixing
from statesize.codes import Note
from statesize.errors import ModelError
from statesize.operators import BlockDense, Dense, Operator

# Random combinations of the rows of T, by which heads and channels are recognised, and their rounding in that of a row.
_COMBINATIONS, _SLACK = 3, 100
# Numbers of all T that is compared.
_LARGEST = 2**27
# Cuts at which the rank of T is compared with a state size where a random part of it shows more.
_CUTS = 8
_DOUBLE, _SINGLE = 1e-9, 1e-5


def most_compared(operator: Operator) -> int:
    """The longest text whose T of all heads is compared."""
    return math.isqrt(_LARGEST // math.prod(operator.batch_shape))


@dataclass(frozen=True)
class _Fit:
    """How far T is from what one tensor of a layer makes of another one, and where it is first beyond rounding."""

    difference: float
    head: int
    position: int
    multiplicity: int


@torch.no_grad()
def check_declared(name: str, call: ModuleCall, operator: Operator) -> Checked:
    """Compare T of all heads with the layer's own answers to random values; a T that is another is refused.

    T is right if a tensor of the layer is T times another one, and all mixing goes through it. The trace says between
    which tensors the layer is linear.

    Args:
        name: The layer's name.
        call: The call of the layer.
        operator: T as the layer declares it.

    Returns:
        How far T is from the layer's answers, or why nothing was compared.

    Raises:
        ModelError: T is another one, that of a part, or keeps more than its state size says.
    """
    if isinstance(operator, BlockDense):
        return Checked(reason="it takes several values of each token; `multiplicity` says how many channels share it")
    matrix = operator.dense().double().cpu()
    if not bool(matrix.isfinite().all()):
        return Checked(reason="its T is not finite")
    try:
        trace = Trace(call)
    except ModelError as error:
        return Checked(reason=str(Note.of(error)))
    if (ahead := trace.looks_ahead()) is not None:
        raise ModelError(Note(ahead.code, f"Mixer {name} must be causal, but {ahead} {CAUSES}"))
    exact = trace.in_double and operator.dtype is torch.float64
    limit, closest, is_part = _DOUBLE if exact else _SINGLE, list[_Fit](), False
    for piece, around in trace.pieces():
        fit = _fit(matrix, *_answers(piece, call.texts), limit)
        if fit is None or fit.difference > limit:
            closest += [] if fit is None else [fit]
            continue
        if around.behind >= _reach(matrix):
            is_part = True
            continue
        if exact and isinstance(operator, Dense):
            _require_state_size(name, operator, matrix)
        part = mixing_around(around)
        return Checked(fit.difference, limit, fit.multiplicity, part=part)
    if is_part:
        raise ModelError(
            f"Mixer {name}: operator(hidden) must be T of all that the layer mixes, got T of a part that reaches no "
            "further than another one. Return T of the whole, or make each part a module of its own."
        )
    if not closest and (mixing := trace.found()) is not None:
        closest = _apart(matrix, mixing, limit)
    if not closest:
        return Checked(reason="no tensor through which all of its mixing goes was found to be linear in another one")
    wrong = min(closest, key=lambda fit: fit.difference)
    raise ModelError(
        f"Mixer {name}: operator(hidden) must be what the layer computes, got a T that differs from the layer's "
        f"own answers to random values by {wrong.difference:.1e} of the largest value, first in head {wrong.head} at "
        f"position {wrong.position}; at most {limit:.0e} is rounding. Correct the method, or "
        "leave it out: T is then read from a trace."
    )


def _apart(matrix: Tensor, mixing: TracedMixing, limit: float) -> list[_Fit]:
    """How far T is from the one of the trace, its heads in order; nothing where the numbers of channels do not fit."""
    own, (_, units, _, shared) = mixing.matrix, mixing.values.shape
    if mixing.around.behind or mixing.around.beside or units * shared % matrix.shape[1]:
        return []
    each = units * shared // matrix.shape[1]
    difference = (matrix.repeat_interleave(each, 1) - own.repeat_interleave(shared, 1)).abs().amax((0, -1))
    relative = difference / own.repeat_interleave(shared, 1).abs().amax((0, 2, 3)).unsqueeze(-1)
    head, position = (int(one) for one in (relative > limit).nonzero()[0])
    return [_Fit(float(relative.max()), head // each, position, each)]


def _answers(piece: Piece, texts: int) -> tuple[Tensor, Tensor]:
    """Random values of the start of a map, and what it makes of them, (S, L, channels)."""
    entered = random_like(piece.held, 5)
    answers = piece.by_position(entered) - piece.offset
    entered, answers = (part.reshape(len(part), texts, -1).transpose(0, 1).double() for part in (entered, answers))
    return entered, answers


def _reach(matrix: Tensor) -> int:
    """How many earlier positions T reads at most; 1 where it reads none."""
    reads = (matrix.abs() > _DOUBLE * matrix.abs().max()).flatten(0, -3).any(0)
    return max((row - int(columns.nonzero()[0]) for row, columns in enumerate(reads) if bool(columns.any())), default=1)


def _fit(matrix: Tensor, entered: Tensor, answers: Tensor, limit: float) -> _Fit | None:
    """How far T (S, H, L, L) is from the answers (S, L, q) to random values (S, L, p); None where no head fits."""
    weights = torch.randn(_COMBINATIONS, matrix.shape[-1], generator=torch.Generator().manual_seed(4)).double()
    combined = weights @ matrix
    # What each head makes of each channel, in random combinations of rows: (S, combinations, H × p).
    expected = (combined @ entered.unsqueeze(1)).transpose(1, 2).flatten(2)
    found = weights @ answers
    slack = _SLACK * limit * found.abs().amax()
    chosen = _nearest(expected[0, 0], found[0, 0].contiguous())
    if not slack > 0 or not bool(((expected[..., chosen] - found).abs() <= slack).all()):
        return None
    heads, leaving = matrix.shape[1], answers.shape[-1]
    # Heads of equal T share what is made by it.
    rows = combined.transpose(0, 1).flatten(1)
    size = rows.abs().amax(-1)
    equal = torch.cdist(rows, rows, p=math.inf) <= _SLACK * limit * torch.maximum(size, size[:, None])
    leaders = equal.int().argmax(1)
    head = leaders[chosen // entered.shape[-1]]
    if any(heads * int((head == one).sum()) != leaving * int((leaders == one).sum()) for one in leaders):
        return None
    largest, wrong = 0.0, (0, 0)
    for one in reversed(cast("list[int]", head.unique().tolist())):
        wanted = answers[..., head == one]
        made = matrix[:, one] @ entered[..., (chosen % entered.shape[-1])[head == one]]
        relative = ((made - wanted).abs().amax(-1) / wanted.abs().amax((-2, -1)).unsqueeze(-1)).nan_to_num(0.0).amax(0)
        largest = max(largest, float(relative.max()))
        beyond = relative > limit
        wrong = (one, int(beyond.int().argmax())) if bool(beyond.any()) else wrong
    return _Fit(largest, *wrong, leaving // heads)


def _nearest(numbers: Tensor, wanted: Tensor) -> Tensor:
    """For each wanted number the index of the known one that is nearest to it."""
    ordered, order = numbers.sort()
    after = torch.searchsorted(ordered, wanted).clamp(max=len(numbers) - 1)
    before = (after - 1).clamp(min=0)
    return order[torch.where((ordered[after] - wanted).abs() < (ordered[before] - wanted).abs(), after, before)]


def _require_state_size(name: str, operator: Dense, matrix: Tensor) -> None:
    """Refuse a state size of a bare matrix T, (S, H, L, L), that is less than what T keeps somewhere."""
    sizes = cast("list[int]", operator.state_size().tolist())
    most = 0, 0, 0
    for cut in [operator.length // 2, *cuts_beyond(matrix, operator.state_size())[:_CUTS]]:
        # T keeps no more numbers than there are positions before.
        if sizes[cut] < cut:
            rank = int(cast("Tensor", torch.linalg.matrix_rank(matrix[..., cut:, :cut], rtol=1e-8)).amax())
            most = max(most, (rank - sizes[cut], rank, cut))
    beyond, rank, cut = most
    if beyond:
        raise ModelError(
            f"Mixer {name}: the `state_size` of its ss.Dense must be at least the {rank} numbers that T keeps at "
            f"position {cut}, got {sizes[cut]}. Correct it, or leave it out."
        )
