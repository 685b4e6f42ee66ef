"""Whether the T that a layer declares is what the layer computes."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from statesize.adapters.check import CAUSES, Checked
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.observation import random_like
from statesize.adapters.trace.channels import Channels, channels
from statesize.adapters.trace.layer import mixing_around
from statesize.adapters.trace.replay import Piece
from statesize.adapters.trace.run import ROUNDING
from statesize.adapters.trace.states import ranks
from statesize.adapters.trace.trace import Trace
from statesize.codes import Note
from statesize.errors import ModelError
from statesize.operators import BlockDense, Dense, Operator

# Random combinations of the rows of T, by which heads and channels are recognised, and their rounding in that of a row.
_COMBINATIONS, _SLACK = 3, 100
# Numbers of all T that is compared.
_LARGEST = 2**27
_DOUBLE, _SINGLE = 1e-9, 1e-5


def most_compared(operator: Operator) -> int:
    """The longest text whose T of all heads is compared."""
    return math.isqrt(_LARGEST // math.prod(operator.batch_shape))


@torch.no_grad()
def check_declared(name: str, call: ModuleCall, operator: Operator) -> Checked:
    """How far T of all heads is from the layer's own answers to random values; another T is refused."""
    # T is right if a tensor of the layer is T times another one, and all mixing goes through it. The trace says between
    # which tensors the layer is linear.
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
    exact = trace.dtype is torch.float64 and operator.dtype is torch.float64
    limit, rounding = _DOUBLE if exact else _SINGLE, ROUNDING[trace.dtype]
    for piece in trace.search.pieces():
        difference, _ = _fit(matrix, piece, channels(piece, call.texts, rounding), limit)
        if difference > limit:
            continue
        if exact and isinstance(operator, Dense):
            _require_state_size(name, operator, matrix)
        multiplicity = piece.ended.shape[1] // math.prod(operator.batch_shape)
        return Checked(difference, limit, multiplicity, part=mixing_around(trace.search.around(piece)))
    mixing = trace.found()
    is_whole = mixing is not None and not (mixing.around.behind or mixing.around.beside)
    wrong, where = _fit(matrix, mixing.piece, mixing.channels, limit) if mixing and is_whole else (math.inf, "")
    if wrong == math.inf:
        return Checked(reason="no tensor through which all of its mixing goes was found to be linear in another one")
    raise ModelError(
        f"Mixer {name}: operator(hidden) must be what the layer computes, got a T that differs from the layer's "
        f"own answers to random values by {wrong:.1e} of the largest value, first {where}; at most {limit:.0e} is "
        "rounding. Correct the method, or leave it out: T is then read from a trace."
    )


def _fit(matrix: Tensor, piece: Piece, units: Channels | None, limit: float) -> tuple[float, str]:
    """How far T (S, H, L, L) is from the answers of a map to random values, and where it is first beyond rounding."""
    if units is None or units.target[0].numel() % matrix.shape[1]:
        # Heads share no channels.
        return math.inf, ""
    entered = random_like(piece.held, 5)
    answers = piece.by_position(entered) - piece.offset
    pairs = (entered, units.source), (answers, units.target)
    given, wanted = (units.by_unit(*pair).transpose(1, 2).flatten(2).double() for pair in pairs)  # (S, L, channels)
    weights = torch.randn(_COMBINATIONS, matrix.shape[-1], generator=torch.Generator().manual_seed(4)).double()
    combined = weights @ wanted
    apart = (weights @ matrix @ given.unsqueeze(1) - combined.unsqueeze(1)).abs().amax((0, 2))  # (H, channels)
    head, made = apart.argmin(0), torch.zeros_like(wanted)
    if bool((apart.amin(1) > _SLACK * limit * combined.abs().amax()).any()):
        # A head that no channel has: what is wrong is said of heads in order.
        head = torch.arange(len(apart)).repeat_interleave(len(head) // len(apart))
    for index in cast("list[int]", head.unique().tolist()):
        made[..., head == index] = matrix[:, index] @ given[..., head == index]
    relative = ((made - wanted).abs() / wanted.abs().amax(1, keepdim=True)).nan_to_num(0.0).amax(0)  # (L, channels)
    beyond = (relative > limit).nonzero()
    position, channel = (int(at) for at in beyond[head[beyond[:, 1]].argmin()]) if len(beyond) else (0, 0)
    return float(relative.max()), f"in head {int(head[channel])} at position {position}"


def _require_state_size(name: str, operator: Dense, matrix: Tensor) -> None:
    """Refuse a state size of a bare matrix T, (S, H, L, L), that is less than what T keeps somewhere."""
    sizes = operator.state_size()
    beyond, cut = max((rank - int(sizes[cut]), cut) for cut, rank in ranks(matrix, sizes, matrix.shape[1]).items())
    if beyond > 0:
        raise ModelError(
            f"Mixer {name}: the `state_size` of its ss.Dense must be at least the {int(sizes[cut]) + beyond} numbers "
            f"that T keeps at position {cut}, got {int(sizes[cut])}. Correct it, or leave it out."
        )
