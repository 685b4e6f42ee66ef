"""T of a mixer by impulses inside of it: the output of one of its parts is varied, the input of another is read.

Nothing of the package is used. A part whose output acts on what is read as a matrix along the positions, linear in
what is varied, carries the values; the responses to impulses at each position are the columns of T.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LINEAR = 1e-4
OUTPUT = "its output"
MOST_ROWS = 60_000
# Linear attention is linear in each channel of its keys too; behind an output projection all values come together.
MOST_SOURCES = 10


@dataclass(frozen=True, eq=False)
class Responses:
    """What a mixer makes of impulses.

    Attributes:
        varied: What was varied, and where it was read.
        matrices: For each channel that is read, T by each channel of what is varied that reaches it linearly: lists of
            (L, L), row i, column j.
    """

    varied: str
    matrices: list[list[Tensor]]

    @property
    def covered(self) -> float:
        """Share of the channels that some varied channel reaches."""
        return sum(map(bool, self.matrices)) / len(self.matrices)

    @property
    def sources(self) -> int:
        """The most varied channels that reach one channel; 1 where only values are varied."""
        return max(map(len, self.matrices))


@contextmanager
def calls_of(module: nn.Module) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Arguments of each call of a module while this is open."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((copied(args), copied(kwargs))), with_kwargs=True
    )
    try:
        yield calls
    finally:
        handle.remove()


def copied(value: Any) -> Any:
    """Arguments with tensors of their own, and without caches."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: copied(part) for name, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(copied(part) for part in value)
    return None if hasattr(value, "get_seq_length") else value


@torch.no_grad()
def impulse_matrices(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], units: int) -> Responses | None:
    """T of a mixer called with one sequence, by the pair of parts that covers most."""
    parts = {name: part for name, part in module.named_modules() if name}
    inputs, outputs = _values(module, parts, args, kwargs)
    best: Responses | None = None
    # Values come from a part with a v in its name; what is mixed goes into one of the last.
    for varied in sorted(outputs, key=lambda name: "v" not in name):
        for read in reversed(inputs):
            if read == varied or inputs[read].ndim < 3 or inputs[read].shape[2:].numel() % units:
                continue
            found = _respond(module, parts, args, kwargs, (varied, outputs[varied]), read)
            if found is None or not _one_a_unit(found, units):
                continue
            if best is None or _quality(found) > _quality(best):
                best = found
            if best is not None and _quality(best) == (1, -1):
                return best
    return best


def _one_a_unit(responses: Responses, units: int) -> bool:
    """Whether all channels of a head show one matrix, up to a factor for each row: else these are not its values."""
    channels = len(responses.matrices) // units
    for unit in range(units):
        seen = [found[0] for found in responses.matrices[unit * channels : (unit + 1) * channels] if len(found) == 1]
        rows = [part / part.norm(dim=1, keepdim=True).clamp(min=1e-30) for part in seen]
        products = [(part * rows[0]).sum(1).abs() for part in rows]
        if any(bool((product < 0.999).any()) for product in products):
            return False
    return True


def _quality(responses: Responses) -> tuple[float, int]:
    return responses.covered, -responses.sources


def _values(
    module: nn.Module, parts: dict[str, nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """First inputs and outputs, (1, L, …), of the parts that are called once."""
    inputs: dict[str, list[Tensor]] = {}
    outputs: dict[str, list[Tensor]] = {}
    handles = []
    for name, part in parts.items():

        def keep(_: nn.Module, given: Any, output: Any, name: str = name) -> None:
            if given and isinstance(given[0], Tensor) and given[0].ndim >= 3:
                inputs.setdefault(name, []).append(given[0])
            if isinstance(output, Tensor) and output.ndim >= 3:
                outputs.setdefault(name, []).append(output)

        handles.append(part.register_forward_hook(keep))
    try:
        # What the mixer itself returns may be what it mixed.
        inputs[OUTPUT] = [_first(module(*args, **kwargs))]
    finally:
        for handle in handles:
            handle.remove()
    once = [{name: parts[0] for name, parts in kept.items() if len(parts) == 1} for kept in (inputs, outputs)]
    return once[0], once[1]


def _respond(
    module: nn.Module,
    parts: dict[str, nn.Module],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    varied: tuple[str, Tensor],
    read: str,
) -> Responses | None:
    name, output = varied
    if len(output) > 1:
        return None
    axis = 1 if output.shape[1] > 1 else 2  # some have a dimension of one head before that of the positions
    length, channels = output.shape[axis], output.shape[axis + 1 :].numel()
    size = float(output.abs().max())
    rows = torch.cartesian_prod(torch.arange(channels), torch.arange(length))
    if len(rows) * length > MOST_ROWS * 23 or not size:
        return None
    plain = _read(module, parts, (_expanded(args, 1), _expanded(kwargs, 1)), (name, output), read)
    answers = []
    for scale in (1.0, 2.0):
        impulses = torch.zeros(len(rows), length, channels)
        impulses[torch.arange(len(rows)), rows[:, 1], rows[:, 0]] = scale * size
        changed = output + impulses.reshape(len(rows), *output.shape[1:])
        given = (_expanded(args, len(rows)), _expanded(kwargs, len(rows)))
        answer = _read(module, parts, given, (name, changed), read)
        if answer is None or plain is None:
            return None
        if answer.shape[1] != length:
            return None
        answers.append((answer - plain).reshape(channels, length, length, -1) / (scale * size))
    once, twice = answers  # (varied channel, j, i, read channel)
    largest, uneven = once.abs().amax((1, 2)), (twice - once).abs().amax((1, 2))
    across = (once * (1 - torch.eye(length))[..., None]).abs().amax((1, 2))
    scale = across.amax(0)
    linear = (uneven <= LINEAR * largest) & (across > 1e-3 * scale)
    # What is linear in several channels, such as a product of two, is so in each of them.
    matrices = [
        [once[source, :, :, channel].T for source in sources.nonzero()[:, 0]] if sources.sum() <= MOST_SOURCES else []
        for channel, sources in enumerate(linear.T)
    ]
    return Responses(f"{name} > {read}", matrices)


def _read(
    module: nn.Module,
    parts: dict[str, nn.Module],
    given: tuple[Any, Any],
    varied: tuple[str, Tensor],
    read: str,
) -> Tensor | None:
    """(rows, L, channels): the input of a part while another returns what it is told."""
    seen: list[Tensor] = []
    handles = [parts[varied[0]].register_forward_hook(lambda *_: varied[1])]
    if read != OUTPUT:
        handles.append(parts[read].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone())))
    try:
        output = _first(module(*given[0], **given[1]))
        if read == OUTPUT:
            seen.append(output)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return None
    finally:
        for handle in handles:
            handle.remove()
    return seen[0].flatten(2) if len(seen) == 1 and len(seen[0]) == len(varied[1]) else None


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple | list) else output


def _expanded(value: Any, rows: int) -> Any:
    if isinstance(value, Tensor):
        return value.repeat(rows, *[1] * (value.ndim - 1)) if value.ndim > 1 and len(value) == 1 else value
    if isinstance(value, dict):
        return {name: _expanded(part, rows) for name, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_expanded(part, rows) for part in value)
    return value


def difference(matrices: Tensor, responses: Responses) -> tuple[float, float]:
    """The largest difference of operators (units, L, L) from responses, and the same up to a factor for each row.

    An output gate multiplies the rows of T differently in each channel; where there is one, the second counts.
    """
    channels = len(responses.matrices) // len(matrices)
    plain, gated = [0.0], [0.0]
    for channel, seen in enumerate(responses.matrices):
        expected = matrices[channel // channels].double()
        if seen:
            plain.append(min(_relative(part.double(), expected) for part in seen))
            gated.append(min(_relative(_ungated(part.double(), expected), expected) for part in seen))
    return max(plain), max(gated)


def _relative(seen: Tensor, expected: Tensor) -> float:
    return float((seen - expected).abs().max() / expected.abs().max())


def _ungated(seen: Tensor, expected: Tensor) -> Tensor:
    gate = (expected * seen).sum(-1, keepdim=True) / expected.square().sum(-1, keepdim=True).clamp(min=1e-300)
    # Rows that a gate closes show nothing.
    shown = gate.abs() > 1e-2 * gate.abs().max()
    return torch.where(shown, seen / gate.where(shown, torch.ones_like(gate)), expected)


def kernel_calls(model: nn.Module, ids: Tensor, name: str) -> list[tuple[Any, dict[str, Any]]]:
    """The calls of a function of a model's file in pure torch, each with its arguments by name."""
    files = {sys.modules[type(part).__module__] for part in model.modules()}
    calls: list[tuple[Any, dict[str, Any]]] = []
    for file in [file for file in files if name in vars(file)]:
        original = vars(file)[name]
        function = inspect.unwrap(original)

        def watched(*args: Any, function: Any = function, **kwargs: Any) -> Any:
            bound = inspect.signature(function).bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = dict(bound.arguments)
            calls.append((function, arguments | arguments.pop("kwargs", {})))
            return function(*args, **kwargs)

        setattr(file, name, watched)
        try:
            with torch.no_grad():
                model(input_ids=ids, use_cache=False)
        finally:
            setattr(file, name, original)
    return calls


@torch.no_grad()
def impulse_responses(function: Any, arguments: dict[str, Any]) -> Tensor:
    """T of every unit, (S, units, L, L), by calling the kernel again with unit impulses as its values."""
    arguments = {name: value for name, value in arguments.items() if name != "kwargs"}
    name = next(name for name in ("hidden_states", "value") if name in arguments)
    values = arguments[name]
    if values.ndim == 3:
        return _one_channel_each(function, arguments, name)
    sequences, length, heads, _ = values.shape
    impulses = torch.eye(length, dtype=values.dtype)[:, None].expand(sequences, length, heads, length)
    return _first(function(**{**arguments, name: impulses.contiguous()})).transpose(1, 2)


def _one_channel_each(function: Any, arguments: dict[str, Any], name: str) -> Tensor:
    # No dimension of the values is free, so that every impulse is a sequence of its own.
    values = arguments[name]
    position = 2 if name == "hidden_states" else 1
    length, found = values.shape[position], []
    for s in range(len(values)):
        alike = {
            key: value[s : s + 1].expand(length, *value.shape[1:]) if key in ("dt", "B", "C", "key") else value
            for key, value in arguments.items()
        }
        impulses = torch.eye(length, dtype=values.dtype).unsqueeze(3 - position)
        impulses = impulses.expand(length, *values.shape[1:])
        gate = {"z": None} if "z" in arguments else {}
        response = _first(function(**{**alike, **gate, name: impulses}))
        found.append((response if position == 2 else response.transpose(1, 2)).permute(1, 2, 0))
    return torch.stack(found)
