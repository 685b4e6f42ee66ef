"""Asking an engine, and a safer one where its arithmetic does not reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from statesize.errors import InputError
from statesize.operators import Convolution, Dense, Operator, Recurrence
from statesize.parallel.threads import free_threads, in_parallel, one_torch_thread
from statesize.spectra.choice import ENGINES, Engine
from statesize.spectra.cut import Cut
from statesize.spectra.engine import HankelBlocks
from statesize.spectra.memory import require_room

Answers = dict[str, Tensor]

# Engines that square their numbers see nothing below the square root of the smallest double, nor above the largest's.
_SQUARED_RANGE = (1e-100, 1e100)
_SAFE = ("square_root", "distinct_blocks", "dense")
# Bytes of an engine's footprint, which grows with its work, from which a thread of its own saves time.
_WORTH_A_THREAD = 2**24
_LinAlgError: type[Exception] = cast("Any", torch.linalg).LinAlgError


@dataclass(frozen=True)
class Question:
    """What is asked of the blocks H_i.

    Attributes:
        cut: Which blocks.
        ask: Turns blocks into tensors of leading shape (..., P).
    """

    cut: Cut
    ask: Callable[[HankelBlocks], Answers]


def answers(operator: Operator, engine: Engine, question: Question, memory: int) -> tuple[Answers, str]:
    """What an engine answers for all batch entries, as many of them and of their positions at once as memory allows.

    Entries whose numbers lie outside the range of an engine that squares, or for which it overflowed, are asked of
    `square_root`, `distinct_blocks` or `dense` instead.

    Args:
        operator: In float64.
        engine: The engine.
        question: What is asked.
        memory: Bytes to hold at once.

    Returns:
        The tensors, and the names of the engines that were used.

    Raises:
        InputError: T itself is not finite.
    """
    cuts = _position_blocks(operator, engine, question.cut, memory)
    if len(cuts) > 1:
        return _joined([answers(operator, engine, replace(question, cut=cut), memory) for cut in cuts], operator)
    shape, total = operator.batch_shape, operator.batch_shape.numel()
    each, shared = (max(1, part(operator, question.cut)) for part in (engine.footprint, engine.shared))
    with one_torch_thread():
        threads = min(free_threads(), memory // (each + shared), total * each // _WORTH_A_THREAD)
        threads = max(1, threads if operator.device.type == "cpu" else 1)
        held = min(memory // threads - shared, engine.portion)
        block = max(1, min(held // each, -(-total // threads)))
        if total <= block:
            return _in_range(operator, engine, question)
        parts = in_parallel(
            [partial(_block, operator, entries, engine, question) for entries in _split(total, block)], most=threads
        )
    joined = {name: torch.cat([found[name] for found, _ in parts]) for name in parts[0][0]}
    return {name: part.reshape(*shape, *part.shape[1:]) for name, part in joined.items()}, _names(parts)


def _position_blocks(operator: Operator, engine: Engine, cut: Cut, memory: int) -> list[Cut]:
    """The cut, or parts of it where one entry would not fit and an engine holds less for fewer positions."""
    held, half = engine.footprint(operator, cut), replace(cut, positions=cut.positions[::2])
    if held <= memory or len(cut.positions) < 2 or engine.footprint(operator, half) > 0.75 * held:
        return [cut]
    middle = len(cut.positions) // 2
    halves = (replace(cut, positions=part) for part in (cut.positions[:middle], cut.positions[middle:]))
    return [part for half in halves for part in _position_blocks(operator, engine, half, memory)]


def _joined(parts: list[tuple[Answers, str]], operator: Operator) -> tuple[Answers, str]:
    """Answers for parts of the positions as one; shorter spectra are padded with zeros."""
    r = max(found["values"].shape[-1] if "values" in found else 0 for found, _ in parts)
    for found, _ in parts:
        if "values" in found:
            found["values"] = torch.nn.functional.pad(found["values"], (0, r - found["values"].shape[-1]))
    dim = len(operator.batch_shape)
    return {name: torch.cat([found[name] for found, _ in parts], dim) for name in parts[0][0]}, _names(parts)


def _names(parts: list[tuple[Answers, str]]) -> str:
    """The engines that were used for any part, each once."""
    return ", ".join(dict.fromkeys(name for _, used in parts for name in used.split(", ")))


def _split(total: int, block: int) -> list[Tensor]:
    return [torch.arange(first, min(first + block, total)) for first in range(0, total, block)]


def _block(operator: Operator, entries: Tensor, engine: Engine, question: Question) -> tuple[Answers, str]:
    """What an engine answers for some entries of the flattened batch."""
    place = torch.unravel_index(entries.to(operator.device), operator.batch_shape)
    try:
        return _in_range(_chosen(operator, place), engine, question)
    except InputError:
        # It names entries as the block counts them; asked one by one, each can be named by its own index.
        for single in zip(*place, strict=True):
            entry = tuple(int(index) for index in single)
            try:
                _in_range(operator[entry], engine, question)
            except InputError as error:
                raise InputError(f"batch entry {entry}: {error}") from None
        raise


def _chosen(operator: Operator, place: tuple[Tensor, ...]) -> Operator:
    """Successive entries of the flattened batch."""
    shape = operator.batch_shape
    if shape.numel() == shape[-1]:
        # A slice takes no copies, as entries by their numbers do.
        return operator[(*(0 for _ in shape[:-1]), slice(int(place[-1][0]), int(place[-1][-1]) + 1))]
    return operator[place]


def _in_range(operator: Operator, engine: Engine, question: Question) -> tuple[Answers, str]:
    left = torch.ones(operator.batch_shape, dtype=torch.bool, device=operator.device)
    found: Answers | None = None
    used: list[str] = []
    for attempt in _attempts(engine, operator):
        place = left.nonzero().unbind(-1) if found is not None and left.ndim else ...
        part = operator if place is ... else operator[place]
        require_room(part, attempt, question.cut)
        try:
            blocks = attempt.blocks(part, question.cut)
            again = question.ask(blocks)
        except _LinAlgError:
            continue
        except InputError:
            # Its indices are those of the entries that were left; what was found before has those of the operator.
            if found is not None:
                _require_finite(found, question.cut)
            raise
        used.append(f"{attempt.name} ({blocks.way})" if blocks.way else attempt.name)
        if found is None:
            found = again
        else:
            for name, answer in again.items():
                found[name][place] = answer[..., : found[name].shape[-1]]
        left = ~_finite(found)
        if attempt.name not in _SAFE:
            size = _magnitude(operator)
            left |= ((size < _SQUARED_RANGE[0]) & (size > 0)) | (size > _SQUARED_RANGE[1])
        if not bool(left.any()):
            break
    if found is None:
        raise InputError("the singular values of T did not converge, which finite entries do not cause; check them")
    _require_finite(found, question.cut)
    return found, ", ".join(used)


def _attempts(engine: Engine, operator: Operator) -> list[Engine]:
    safe = [ENGINES[name] for name in _SAFE if ENGINES[name].takes[1](operator)]
    return [engine, *(other for other in safe if other is not engine)] if engine.name != "dense" else [engine]


def _magnitude(operator: Operator) -> Tensor:
    """About the size of the largest entry that an operator's tensors can make, (...)."""
    one = torch.ones(operator.batch_shape, dtype=torch.float64, device=operator.device)
    if isinstance(operator, Recurrence):
        return one * operator.B.abs().amax((-2, -1)) * operator.C.abs().amax((-2, -1))
    if isinstance(operator, Dense):
        return operator.matrix.abs().amax((-2, -1))
    return operator.kernel.abs().amax(-1) if isinstance(operator, Convolution) else one


def _finite(found: Answers) -> Tensor:
    """Whether all that was found for a batch entry is finite, (...)."""
    rank = found["norm"].ndim
    flat = [torch.isfinite(part).flatten(rank - 1).all(-1) for part in found.values()]
    return torch.stack(flat).all(0)


def _require_finite(found: Answers, cut: Cut) -> None:
    bad = ~torch.isfinite(found["norm"] + found["error_bound"])
    if bool(bad.any()):
        *entry, place = (int(k) for k in bad.nonzero()[0])
        where = f"batch entry {tuple(entry)}, " if entry else ""
        raise InputError(
            f"T is not finite at {where}position {cut.positions[place]}: its entries overflow float64. Check the "
            "decays, gates and scores that it is made of"
        )
