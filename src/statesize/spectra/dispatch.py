"""Choose an engine and run it; fall back to a safer one where numbers over- or underflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor

from statesize.errors import EngineError, InputError
from statesize.io.machine import free_bytes
from statesize.operators import Convolution, Operator, Shared
from statesize.parallel.threads import free_threads, in_parallel, one_torch_thread
from statesize.spectra.all_cuts.all_cuts import AllCutsEngine
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Engine, HankelBlocks
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.exact.exact import ExactEngine
from statesize.spectra.implicit.implicit import ImplicitEngine
from statesize.spectra.small_state.small_state import SmallStateEngine

ORDER: tuple[Engine, ...] = (SmallStateEngine(), AllCutsEngine(), ImplicitEngine(), ExactEngine(), DenseEngine())
ENGINES = {engine.name: engine for engine in ORDER}

Answers = dict[str, Tensor]

LARGE = 2**31
"""Bytes for one batch entry beyond which "auto" looks for an engine that holds less."""
_LinAlgError: type[Exception] = cast("Any", torch.linalg).LinAlgError


def choose_engine(operator: Operator, cut: Cut, outputs: tuple[str, ...], name: str = "auto") -> Engine:
    """The engine of a name, or for "auto" the fastest that computes these outputs; refuses one that declines."""
    if not isinstance(name, str) or name not in ("auto", *ENGINES):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise EngineError(f"engine must be one of auto, {', '.join(ENGINES)}, got {name!r}.")
    able = [engine for engine in ORDER if engine.unsupported_reason(operator, cut, outputs) is None]
    if name == "auto" and able:
        return min(able, key=lambda one: (one.footprint(operator, cut).each > LARGE, one.seconds(operator, cut)))
    if name == "auto" or ENGINES[name] not in able:
        tried = ENGINES["implicit" if name == "auto" else name]
        reason = tried.unsupported_reason(operator, cut, outputs)
        others = ", ".join(engine.name for engine in able) or "none"
        raise EngineError(f"engine {tried.name!r} {reason}; these can: {others}")
    return ENGINES[name]


@dataclass(frozen=True)
class Question:
    """The outputs that are requested of the blocks H_i."""

    cut: Cut
    ask: Callable[[HankelBlocks], Answers]  # turns blocks into tensors of leading shape (..., P)
    memory: int = 2**30  # bytes to hold at once
    worth_a_thread: int = 2**23  # bytes of an engine's footprint, which grows with its work, to take another thread for


def dispatch(operator: Operator, engine: Engine, question: Question) -> tuple[Answers, str]:
    """The requested tensors, on the CPU, and the engines used: as many entries and positions at once as fit."""
    # Entries for which an engine overflowed are computed by one that squares nothing.
    if isinstance(operator, Convolution) and engine.name != "dense" and not question.cut.windowed:
        folded, cut, index = _folded(operator, question.cut)
        if cut.positions != question.cut.positions or folded.length != operator.length:
            answers, used = dispatch(folded, engine, replace(question, cut=cut))
            return {name: part.index_select(len(operator.batch_shape), index) for name, part in answers.items()}, used
    cut, positions = question.cut, question.cut.positions
    # By what is set alone, not by what is free: the same question gets the same answer on every machine.
    engine = engine.within(operator, cut, question.memory // 2)
    each = engine.footprint(operator, cut).each
    if each > question.memory and len(positions) > 1:
        half, middle = replace(cut, positions=positions[::2]), len(positions) // 2
        # Where one entry does not fit, and the engine holds less for fewer positions.
        if engine.footprint(operator, half).each <= 0.75 * each:
            cuts = (replace(cut, positions=part) for part in (positions[:middle], positions[middle:]))
            return _joined([dispatch(operator, engine, replace(question, cut=part)) for part in cuts], operator)
    shape, total = operator.batch_shape, operator.batch_shape.numel()
    with one_torch_thread():
        each, shared = (max(1, part) for part in engine.footprint(operator, cut)[:2])
        threads = min(free_threads(), question.memory // (each + shared), total * each // question.worth_a_thread)
        threads = max(1, 1 if engine.keeps_device and operator.device.type != "cpu" else threads)
        held = min(question.memory // threads - shared, engine.block_bytes)
        block = max(1, min(held // each, -(-total // threads)))
        if total <= block:
            return _in_range(operator, engine, question)
        blocks = torch.split(torch.arange(total), block)
        parts = in_parallel([partial(_block, operator, part, engine, question) for part in blocks], most=threads)
    joined = {name: torch.cat([answer[name] for answer, _ in parts]) for name in parts[0][0]}
    return {name: part.reshape(*shape, *part.shape[1:]) for name, part in joined.items()}, _names(parts)


def _folded(convolution: Convolution, cut: Cut) -> tuple[Convolution, Cut, Tensor]:
    """A shorter convolution, the positions up to its middle at which blocks differ, and which of them stands where."""
    # With its columns in reverse order, H_i of a kernel k is the Hankel matrix k_{1+r+c} of L − i rows and i columns,
    # so H_{L−i} = H_iᵀ; and if k_m is the last tap that is not 0, at most the first m rows and columns are not 0.
    kernel = convolution.kernel[..., : cut.length]
    taps = kernel.detach().reshape(-1, kernel.shape[-1]).any(0).nonzero()
    length = min(cut.length, 2 * max(1, int(taps.max()) if taps.numel() else 0))
    nearest = torch.tensor([min(i, cut.length - i, length // 2) for i in cut.positions], dtype=torch.int64)
    positions, index = cast("tuple[Tensor, Tensor]", nearest.unique(return_inverse=True))
    return Convolution(kernel[..., :length], length), Cut(length, tuple(positions.tolist())), index  # pyright: ignore[reportUnknownArgumentType]


def _joined(parts: list[tuple[Answers, str]], operator: Operator) -> tuple[Answers, str]:
    """Answers for parts of the positions as one; shorter spectra are padded with zeros."""
    dim, answers = len(operator.batch_shape), [answer for answer, _ in parts]
    r = max(answer["values"].shape[-1] if "values" in answer else 0 for answer in answers)
    for answer in answers if r else ():
        answer["values"] = torch.nn.functional.pad(answer["values"], (0, r - answer["values"].shape[-1]))
    return {name: torch.cat([answer[name] for answer in answers], dim) for name in answers[0]}, _names(parts)


def _names(parts: list[tuple[Answers, str]]) -> str:
    """The engines that were used for any part, each once."""
    return ", ".join(dict.fromkeys(name for _, used in parts for name in used.split(", ")))


def _block(operator: Operator, entries: Tensor, engine: Engine, question: Question) -> tuple[Answers, str]:
    """What an engine answers for some entries of the flattened batch."""
    shape, indices = operator.batch_shape, torch.unravel_index(entries.to(operator.device), operator.batch_shape)
    # Where it can be, a slice, which takes no copies, as entries by their numbers do.
    successive = (*(0 for _ in shape[:-1]), slice(int(entries[0]), int(entries[-1]) + 1))
    try:
        return _in_range(operator[successive if shape.numel() == shape[-1] else indices], engine, question)
    except InputError:
        # It names entries as the block counts them; one by one, each can be named by its own index.
        for entry in map(tuple, cast("list[list[int]]", torch.stack(indices, -1).tolist())):
            try:
                _in_range(operator[entry], engine, question)
            except InputError as error:
                raise InputError(f"batch entry {entry}: {error}") from None
        raise


def _in_range(operator: Operator, engine: Engine, question: Question) -> tuple[Answers, str]:
    """The answers of an engine, and of safer ones for the batch entries for which it is not good."""
    left = torch.ones(operator.batch_shape, dtype=torch.bool)
    answers: Answers | None = None
    used: list[str] = []
    safe = (other for other in ORDER if not other.squares and other is not engine and other.supports(operator))
    # After the definition there is no other.
    for attempt in chain([engine], () if engine.name == "dense" else safe):
        indices = left.nonzero().unbind(-1) if answers is not None and left.ndim else ...
        part = operator if indices is ... else operator[indices]
        part = part if attempt.keeps_device or part.device.type == "cpu" else part.to(device="cpu")
        require_memory(part, attempt, question.cut)
        try:
            blocks = attempt.blocks(part if attempt.converts else part.to(dtype=torch.float64), question.cut)
            again = question.ask(blocks)
        except _LinAlgError:
            continue
        except InputError:
            if answers is None:
                raise
            # Its indices are those of the entries that were left; earlier answers have those of the operator.
            break
        used.append(f"{attempt.name} ({blocks.way})" if blocks.way else attempt.name)
        answers = answers or again
        for name, answer in again.items():
            answer = answer[..., : answers[name].shape[-1]]
            # Not in place: an engine may have made the earlier ones without gradients.
            answers[name] = answer if indices is ... else answers[name].index_put(indices, answer)
        # (..., P, …) each.
        numbers = (part for part in answers.values() if part.is_floating_point())
        left = ~torch.stack([torch.isfinite(part).flatten(left.ndim).all(-1) for part in numbers]).all(0)
        if not bool(left.any()):
            break
    if answers is None:
        raise InputError("the singular values of T did not converge, which finite entries do not cause; check them")
    if bool(left.any()):
        _require_finite(answers, question.cut)
    return answers, ", ".join(used)


def _require_finite(answers: Answers, cut: Cut) -> None:
    bad = ~torch.isfinite(answers["norm"] + answers["error_bound"])
    if bool(bad.any()):
        *entry, indices = (int(k) for k in bad.nonzero()[0])
        where = f"batch entry {tuple(entry)}, " if entry else ""
        raise InputError(
            f"T must be finite, got entries that overflow float64 at {where}position {cut.positions[indices]}. Check "
            "the decays, gates and scores that it is made of."
        )


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
    # Below this, the question to the system costs more than it saves.
    if needed < 2**28:
        return
    free = free_bytes(operator.device) if free is None else free
    if free is None or needed <= free:
        return
    able = (other for other in ORDER if other.unsupported_reason(operator, cut, ()) is None)
    smaller = ", ".join(other.name for other in able if sum(other.footprint(operator, cut)) <= free)
    fitting = f"; these engines hold less: {smaller}" if smaller else ""
    raise EngineError(
        f"engine {engine.name!r} would hold at least {needed / 1e9:,.1f} GB for a head or channel, {free / 1e9:,.1f} "
        f"GB are free: give a shorter sequence than {cut.length:,}, or windows by past and future{fitting}"
    )
