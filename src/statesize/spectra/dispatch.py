"""Choose an engine and run it; fall back to a safer one where numbers over- or underflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, cast

import torch
from torch import Tensor

from statesize.errors import EngineError, InputError
from statesize.io.machine import free_bytes
from statesize.operators import Convolution, Operator, Shared
from statesize.parallel.threads import free_threads, in_parallel, one_thread
from statesize.spectra.all_cuts.all_cuts import AllCutsEngine
from statesize.spectra.convolutions import folded
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Engine, HankelBlocks
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.exact.exact import ExactEngine
from statesize.spectra.implicit.implicit import ImplicitEngine
from statesize.spectra.small_state.small_state import SmallStateEngine

ORDER: tuple[Engine, ...] = (SmallStateEngine(), AllCutsEngine(), ImplicitEngine(), ExactEngine(), DenseEngine())
ENGINES = {engine.name: engine for engine in ORDER}

Answers: TypeAlias = dict[str, Tensor]
_Found: TypeAlias = tuple[Answers, list[str]]  # with the engines that were used


def choose_engine(
    operator: Operator, cut: Cut, outputs: tuple[str, ...], name: str = "auto", memory: int = 2**31
) -> Engine:
    """The engine of a name, or for "auto" the fastest that computes these outputs; refuses one that declines."""
    if not isinstance(name, str) or name not in ("auto", *ENGINES):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise EngineError(f"engine must be one of auto, {', '.join(ENGINES)}, got {name!r}.")
    able = {engine.name: engine for engine in ORDER if engine.unsupported_reason(operator, cut, outputs) is None}
    if name == "auto" and able:
        # Where one entry does not fit into the memory, one that holds less.
        return min(able.values(), key=lambda it: (it.footprint(operator, cut).each > memory, it.seconds(operator, cut)))
    if name not in able:
        tried = ENGINES["implicit" if name == "auto" else name]
        reason = tried.unsupported_reason(operator, cut, outputs)
        raise EngineError(f"engine {tried.name!r} {reason}; these can: {', '.join(able) or 'none'}")
    return able[name]


@dataclass(frozen=True)
class Question:
    """The outputs that are requested of the blocks H_i."""

    cut: Cut
    ask: Callable[[HankelBlocks], Answers]  # turns blocks into tensors of leading shape (..., P)
    memory: int = 2**30  # bytes to hold at once
    worth_a_thread: int = 2**23  # bytes of an engine's footprint, which grows with its work, to take another thread for


def dispatch(operator: Operator, engine: Engine, question: Question) -> tuple[Answers, str]:
    """The requested tensors, on the CPU, and the engines used; refuses a T that overflows."""
    cut, shape, total = question.cut, operator.batch_shape, operator.batch_shape.numel()
    engine, index = engine.settled(operator, cut), None
    if isinstance(operator, Convolution) and engine.name != "dense" and not cut.windowed:
        operator, fewer, index = folded(operator, cut)
        question = replace(question, cut=fewer)
    positions = question.cut.positions
    each, shared = (max(1, part) for part in engine.footprint(operator, question.cut))
    half, middle = replace(question.cut, positions=positions[::2]), len(positions) // 2
    # Where one entry does not fit, and the engine holds less for fewer positions.
    if each > question.memory and len(positions) > 1 and engine.footprint(operator, half).each <= 0.75 * each:
        cuts = (replace(question.cut, positions=part) for part in (positions[:middle], positions[middle:]))
        parts, dim = [dispatch(operator, engine, replace(question, cut=part)) for part in cuts], len(shape)
        answers, used = _joined([(answers, used.split(", ")) for answers, used in parts], dim)
    else:
        with one_thread():
            threads = min(free_threads(), question.memory // (each + shared), total * each // question.worth_a_thread)
            threads = max(1, 1 if engine.keeps_device and operator.device.type != "cpu" else threads)
            held = min(question.memory // threads - shared, engine.block_bytes)
            block = max(1, min(held // each, -(-total // threads)))
            if total <= block:
                answers, used = _in_range(operator, engine, question)
            else:
                blocks = [_entries(operator, first, min(first + block, total)) for first in range(0, total, block)]
                parts = in_parallel([partial(_in_range, part, engine, question) for part in blocks], most=threads)
                answers, used = _joined(parts, 0)
                answers = {name: part.reshape(*shape, *part.shape[1:]) for name, part in answers.items()}
    if index is not None:
        answers = {name: part.index_select(len(shape), index) for name, part in answers.items()}
    bad = ~torch.isfinite(answers["norm"] + answers["error_bound"])
    if bool(bad.any()):
        *entry, place = cast("list[int]", bad.nonzero()[0].tolist())
        where = f"batch entry {tuple(entry)}, " if entry else ""
        raise InputError(
            f"T must be finite, got entries that overflow float64 at {where}position {cut.positions[place]}. "
            "Check the decays, gates and scores that it is made of."
        )
    return answers, ", ".join(dict.fromkeys(used))


def _joined(parts: list[_Found], dim: int) -> _Found:
    """Answers for parts of the positions or of the entries as one; shorter spectra are padded with zeros."""
    answers = [answer for answer, _ in parts]
    if "values" in answers[0]:
        r = max(answer["values"].shape[-1] for answer in answers)
        for answer in answers:
            answer["values"] = torch.nn.functional.pad(answer["values"], (0, r - answer["values"].shape[-1]))
    used = [name for _, names in parts for name in names]
    return {name: torch.cat([answer[name] for answer in answers], dim) for name in answers[0]}, used


def _entries(operator: Operator, first: int, last: int) -> Operator:
    """Some entries of the flattened batch: where it can be, a slice, which takes no copies."""
    shape = operator.batch_shape
    if shape.numel() == shape[-1]:
        return operator[(*(0 for _ in shape[:-1]), slice(first, last))]
    return operator[torch.unravel_index(torch.arange(first, last, device=operator.device), shape)]


def _in_range(operator: Operator, engine: Engine, question: Question) -> _Found:
    """The answers of an engine, and of engines that square nothing for batch entries where these are not finite."""
    answers, used, left = Answers(), list[str](), None
    for attempt in (engine, *(ENGINES[name] for name in ("exact", "dense") if name != engine.name)):
        if used and not attempt.supports(operator):
            break
        part = operator if left is None else operator[left]
        part = part if attempt.keeps_device or part.device.type == "cpu" else part.to(device="cpu")
        require_memory(part, attempt, question.cut)
        blocks = attempt.blocks(part if attempt.converts else part.to(dtype=torch.float64), question.cut)
        for name, answer in question.ask(blocks).items():
            # Not in place: an engine may have made the earlier ones without gradients.
            kept = answer if left is None else answers[name].index_put(left, answer[..., : answers[name].shape[-1]])
            answers[name] = kept
        used.append(f"{attempt.name} ({blocks.way})" if blocks.way else attempt.name)
        numbers = [part for part in answers.values() if part.is_floating_point()]
        known = torch.stack([part.isfinite().flatten(len(operator.batch_shape)).all(-1) for part in numbers]).all(0)
        if attempt.name == "dense" or bool(known.all()):
            break
        left = (~known).nonzero().unbind(-1) if known.ndim else None
    return answers, used


def with_readouts(operator: Operator, cut: Cut) -> tuple[Operator, Cut]:
    """The operator and the cut that engines take: with a step for each input and output where it says how."""
    stepped = operator.one_at_a_time()
    if stepped is None:
        return operator, replace(cut, readouts=operator.outputs) if isinstance(operator, Shared) else cut
    r = stepped.length // cut.length
    past, future = (None if window is None else r * window for window in (cut.past, cut.future))
    return stepped, Cut(stepped.length, tuple(r * position for position in cut.positions), past, future)


def require_memory(operator: Operator, engine: Engine, cut: Cut, free: int | None = None) -> None:
    """EngineError if the engine needs more for one batch entry than is free, by default what the system says."""
    needed = sum(engine.footprint(operator, cut))
    # Below 2²⁸, the question to the system costs more than it saves.
    free = free_bytes(operator.device) if free is None and needed >= 2**28 else free
    if needed < 2**28 or free is None or needed <= free:
        return
    able = (other for other in ORDER if other.unsupported_reason(operator, cut, ()) is None)
    smaller = ", ".join(other.name for other in able if sum(other.footprint(operator, cut)) <= free)
    fitting = f"; these engines hold less: {smaller}" if smaller else ""
    raise EngineError(
        f"engine {engine.name!r} would hold at least {needed / 1e9:,.1f} GB for a head or channel, {free / 1e9:,.1f} "
        f"GB are free: give a shorter sequence than {cut.length:,}, or windows by past and future{fitting}"
    )
