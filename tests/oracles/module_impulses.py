"""T of a mixer by impulses inside of it: the output of one of its parts is varied, the input of another is read.

Nothing of the package is used. A part whose output acts on what is read as a matrix along the positions, linear in
what is varied, carries the values; the responses to impulses at each position are the columns of T. They are lists of
(L, L), row i, column j: for each channel that is read, T by each channel of what is varied that reaches it linearly.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

LINEAR = 1e-4
OUTPUT = "its output"
MOST_ROWS = 60_000
# Linear attention is linear in each channel of its keys too; behind an output projection all values come together.
MOST_SOURCES = 10

Responses = list[list[Tensor]]


@torch.no_grad()
def module_calls(model: nn.Module, ids: Tensor, module: nn.Module) -> list[tuple[Any, Any]]:
    """Arguments of each call of a module, with tensors of their own, and without caches."""

    def copied(leaf: Any) -> Any:
        if hasattr(leaf, "get_seq_length"):
            return None
        return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf

    def keep(_: nn.Module, *given: Any) -> None:
        calls.append(tree_map(copied, given, is_leaf=lambda leaf: hasattr(leaf, "get_seq_length")))

    calls: list[tuple[Any, Any]] = []
    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    model(input_ids=ids, use_cache=False)
    handle.remove()
    return calls


def reach(responses: Responses) -> tuple[float, int]:
    """Share of the channels that some varied channel reaches, and the most that reach one: 1 where only values vary."""
    return sum(map(bool, responses)) / len(responses), max(map(len, responses))


@torch.no_grad()
def impulse_matrices(module: nn.Module, args: Any, kwargs: Any, units: int) -> Responses | None:
    """T of a mixer called with one sequence, by the pair of parts that covers most."""
    plain, outputs = _run(module, args, kwargs)
    best, best_reach = None, (0.0, 0)
    # Values come from a part with a v in its name; what is mixed goes into one of the last.
    for varied in sorted(outputs, key=lambda name: "v" not in name):
        for found in _responses(module, (args, kwargs), plain, (varied, outputs[varied]), units):
            covered, sources = reach(found)
            if _one_a_unit(found, units) and (best is None or (covered, -sources) > best_reach):
                best, best_reach = found, (covered, -sources)
            if best_reach == (1, -1):
                return best
    return best


def _one_a_unit(responses: Responses, units: int) -> bool:
    """Whether all channels of a head show one matrix, up to a factor for each row: else these are not its values."""
    channels = len(responses) // units
    for unit in range(units):
        seen = [found[0] for found in responses[unit * channels : (unit + 1) * channels] if len(found) == 1]
        rows = [part / part.norm(dim=1, keepdim=True).clamp(min=1e-30) for part in seen]
        products = [(part * rows[0]).sum(1).abs() for part in rows]
        if any(bool((product < 0.999).any()) for product in products):
            return False
    return True


def _run(module: nn.Module, args: Any, kwargs: Any, varied: str = "", told: Tensor | None = None) -> Any:
    """First inputs and outputs, (rows, L, …), of the parts that are called once, while one returns what it is told."""
    inputs: dict[str, list[Tensor]] = {}
    outputs: dict[str, list[Tensor]] = {}

    def enter(name: str, _: nn.Module, given: Any) -> None:
        if given and isinstance(given[0], Tensor) and given[0].ndim >= 3:
            inputs.setdefault(name, []).append(given[0].detach().clone())

    def leave(name: str, _: nn.Module, given: Any, output: Any) -> Tensor | None:
        if isinstance(output, Tensor) and output.ndim >= 3:
            outputs.setdefault(name, []).append(output)
        return told if name == varied else None

    parts = [(name, part) for name, part in module.named_modules() if name]
    handles = [part.register_forward_pre_hook(partial(enter, name)) for name, part in parts]
    handles += [part.register_forward_hook(partial(leave, name)) for name, part in parts]
    try:
        # What the mixer itself returns may be what it mixed.
        inputs[OUTPUT] = [_first(module(*args, **kwargs))]
    finally:
        for handle in handles:
            handle.remove()
    return tuple({name: seen[0] for name, seen in kept.items() if len(seen) == 1} for kept in (inputs, outputs))


def _responses(
    module: nn.Module, given: Any, plain: dict[str, Tensor], varied: tuple[str, Tensor], units: int
) -> Iterator[Responses]:
    """What each part that may take what is mixed reads of impulses in the output of one part, the last part first."""
    name, output = varied
    if len(output) > 1:
        return
    axis = 1 if output.shape[1] > 1 else 2  # some have a dimension of one head before that of the positions
    length, channels = output.shape[axis], output.shape[axis + 1 :].numel()
    size = float(output.abs().max())
    rows = torch.cartesian_prod(torch.arange(channels), torch.arange(length))
    if len(rows) * length > MOST_ROWS * 23 or not size:
        return

    def expanded(leaf: Any) -> Any:
        alone = isinstance(leaf, Tensor) and leaf.ndim > 1 and len(leaf) == 1
        return leaf.repeat(len(rows), *[1] * (leaf.ndim - 1)) if alone else leaf

    impulses = torch.zeros(len(rows), length, channels)
    impulses[torch.arange(len(rows)), rows[:, 1], rows[:, 0]] = size
    impulses = impulses.reshape(len(rows), *output.shape[1:])
    args, kwargs = tree_map(expanded, given)
    try:
        once, twice = (_run(module, args, kwargs, name, output + scale * impulses)[0] for scale in (1, 2))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return
    for read in reversed(plain):
        shape = plain[read].shape
        whole = read in once and read in twice and len(once[read]) == len(rows)
        if read == name or len(shape) < 3 or shape[1] != length or shape[2:].numel() % units or not whole:
            continue
        answers = [(seen[read] - plain[read]).reshape(channels, length, length, -1) / size for seen in (once, twice)]
        yield _linear(answers[0], answers[1] / 2)


def _linear(once: Tensor, twice: Tensor) -> Responses:
    """Responses, (varied channel, j, i, read channel), where they are as many times as large as the impulses."""
    largest, uneven = once.abs().amax((1, 2)), (twice - once).abs().amax((1, 2))
    across = (once * (1 - torch.eye(once.shape[1]))[..., None]).abs().amax((1, 2))
    linear = (uneven <= LINEAR * largest) & (across > 1e-3 * across.amax(0))
    # What is linear in several channels, such as a product of two, is so in each of them.
    return [
        [once[source, :, :, channel].T for source in sources.nonzero()[:, 0]] if sources.sum() <= MOST_SOURCES else []
        for channel, sources in enumerate(linear.T)
    ]


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple | list) else output


def difference(matrices: Tensor, responses: Responses) -> tuple[float, float]:
    """The largest difference of operators (units, L, L) from responses, and the same up to a factor for each row.

    An output gate multiplies the rows of T differently in each channel; where there is one, the second counts.
    """
    channels = len(responses) // len(matrices)
    plain, gated = [0.0], [0.0]
    for channel, seen in enumerate(responses):
        expected = matrices[channel // channels].double()
        if seen:
            plain.append(min(relative_error(part.double(), expected) for part in seen))
            gated.append(min(relative_error(_ungated(part.double(), expected), expected) for part in seen))
    return max(plain), max(gated)


def relative_error(seen: Tensor, expected: Tensor) -> float:
    return float((seen - expected).abs().max() / expected.abs().max())


def _ungated(seen: Tensor, expected: Tensor) -> Tensor:
    gate = (expected * seen).sum(-1, keepdim=True) / expected.square().sum(-1, keepdim=True).clamp(min=1e-300)
    # Rows that a gate closes show nothing.
    shown = gate.abs() > 1e-2 * gate.abs().max()
    return torch.where(shown, seen / gate.where(shown, torch.ones_like(gate)), expected)


@torch.no_grad()
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
            model(input_ids=ids, use_cache=False)
        finally:
            setattr(file, name, original)
    return calls


@torch.enable_grad()
def impulse_responses(function: Any, arguments: dict[str, Any]) -> Tensor:
    """T of every unit, (S, units, L, L), by the derivatives of a kernel's outputs by its values, in which it is linear.

    No value acts on another channel, so that those of the sum over all channels at a position are a row of each T.
    """
    name = next(name for name in ("hidden_states", "value") if name in arguments)
    given = {key: value for key, value in arguments.items() if key not in ("kwargs", "z")}
    given[name] = values = arguments[name].detach().requires_grad_()
    axis = 2 if values.ndim == 3 and name == "hidden_states" else 1
    mixed = _first(function(**given))
    rows = [torch.autograd.grad(row.sum(), values, retain_graph=True)[0] for row in mixed.unbind(axis)]
    if axis == 2:
        return torch.stack(rows, 2)
    # (S, i, j, units), by the first channel of a head.
    T = torch.stack([row if row.ndim == 3 else row[..., 0] for row in rows], 1)
    return T.movedim(-1, 1)
