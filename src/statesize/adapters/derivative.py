"""Layers without a T: the derivative of what leaves them by what enters, at the input that the model gave them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from statesize.adapters.calls import FoundMixer
from statesize.adapters.impulses.lone_run import LoneRuns, by_position, first_tensor
from statesize.adapters.models.held import evaluating, stored_element_size
from statesize.adapters.other_mixing import position_axis
from statesize.errors import ModelError
from statesize.operators import BlockDense

KIND = "derivative"
NOTE = (
    "It has no T: this is the derivative of its outputs by its inputs at this text, all channels together. It compares "
    "with no T of one head or channel."
)
# Positions times channels: T as a whole then takes 134 MB, and measuring it about 1 GB.
LARGEST = 4096
# Copies of the text that are differentiated in one pass.
_COPIES = 64
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}


def is_recurrent(module: nn.Module) -> bool:
    """Whether a module is a recurrence whose next state is no linear function of what enters."""
    return isinstance(module, nn.RNNBase) or type(module).__name__ == "sLSTMLayer"


def too_large(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: object, length: int) -> str:
    """Why the derivative of a module is not made as a whole; "" if it is."""
    channels = [
        leaf.numel() // (length * max(1, leaf.shape[0] if position_axis(leaf, length) else leaf.shape[1]))
        for leaf in (_entering(args, kwargs, length), first_tensor(output))
        if leaf is not None and leaf.ndim > 2
    ]
    if max(channels, default=1) * length <= LARGEST:
        return ""
    return (
        f"{name} has no T, and its derivative is made for at most {LARGEST:,} positions times channels, got "
        f"{length:,} × {max(channels):,}. Give texts of at most {LARGEST // max(channels)} tokens, or take "
        "statesize.network_ess."
    )


def found_derivative(
    name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], length: int
) -> FoundMixer:
    """What is known of a layer that is measured by its derivative."""
    states, entering = state_size(module), _entering(args, kwargs, length)
    numbers = states if states is not None else 0 if entering is None else entering[0].numel()
    return FoundMixer(name, KIND, 1, 1, states, numbers * stored_element_size(module))


def state_size(module: nn.Module) -> int | None:
    """Numbers that a layer keeps: of torch's recurrences, or what its class says in `state_size`; None if unknown."""
    if isinstance(module, nn.RNNBase):
        hidden = module.proj_size or module.hidden_size
        return module.num_layers * (hidden + module.hidden_size if module.mode == "LSTM" else hidden)
    states = getattr(module, "state_size", None)
    return states if isinstance(states, int) else None


def derivative(name: str, runs: LoneRuns) -> tuple[BlockDense, Tensor]:
    """∂y_i/∂x_j of a module, in float64 where it can be, batch shape (S, 1), and what it returned."""
    try:
        alone = _copied(runs, torch.float64)
        returned, _, _ = _graph(name, alone)
    except RuntimeError:
        # Some layers make tensors of float32 themselves.
        alone = _copied(runs, torch.float32)
        returned, _, _ = _graph(name, alone)
    copies = 1
    with suppress(Exception):
        # A module may be written for the number of sequences that it got.
        count = min(_COPIES, returned.numel() // runs.sequences)
        again, _, _ = _graph(name, alone.repeated(count))
        copies = count if again.numel() == count * returned.numel() else 1
    outputs, entering, axes = _graph(name, alone.repeated(copies))
    length, sequences = runs.length, runs.sequences
    leaving = by_position(outputs, axes[1]).reshape(length, copies, sequences, -1)
    rows: list[Tensor] = []
    pairs = [(position, channel) for position in range(length) for channel in range(leaving.shape[-1])]
    for start in range(0, len(pairs), copies):
        some = pairs[start : start + copies]
        position, channel = torch.tensor(some).unbind(1)
        chosen = leaving[position, torch.arange(len(some)), :, channel].sum()
        (gradient,) = torch.autograd.grad(chosen, entering, retain_graph=True, materialize_grads=True)
        by_copy = by_position(gradient, axes[0]).reshape(length, copies, sequences, -1)
        rows.append(by_copy[:, : len(some)].permute(2, 1, 0, 3))
    matrix = torch.cat(rows, 1).reshape(sequences, 1, length, leaving.shape[-1], length, -1)
    return BlockDense(_causal(name, matrix), _states(runs.module, matrix)), returned.detach()


def _copied(runs: LoneRuns, dtype: torch.dtype) -> LoneRuns:
    """The same runs of a copy of the module in another dtype."""

    def converted(leaf: object) -> object:
        return leaf.detach().to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    module = copy.deepcopy(runs.module).to(dtype).requires_grad_(False)
    args, kwargs = tree_map(converted, (runs.args, dict(runs.kwargs)))
    return replace(runs, module=module, args=args, kwargs=kwargs)


def _graph(name: str, runs: LoneRuns) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """The output of a module with its graph, the input that it is differentiated by, and their axes of positions."""
    entering = _entering(runs.args, runs.kwargs, runs.length)
    if entering is None:
        raise ModelError(f"Mixer {name} takes no tensor with the positions of the text, so it has no derivative.")
    variable = entering.detach().clone().requires_grad_()

    def replaced(leaf: object) -> object:
        return variable if leaf is entering else leaf

    args, kwargs = tree_map(replaced, (runs.args, dict(runs.kwargs)))
    with torch.enable_grad(), evaluating(runs.module):
        output = first_tensor(runs.module(*args, **kwargs))
    if output is None or (axis := position_axis(output, runs.length)) is None or not output.requires_grad:
        raise ModelError(f"Mixer {name} returns nothing with the positions of the text that has a derivative.")
    return output, variable, (position_axis(entering, runs.length) or 0, axis)


def _entering(args: tuple[Any, ...], kwargs: Mapping[str, Any], length: int) -> Tensor | None:
    """The first tensor of real numbers with positions that enters a module."""
    leaves: list[object] = tree_leaves((args, dict(kwargs)))
    tensors = (leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim > 1)
    return next((leaf for leaf in tensors if position_axis(leaf, length) is not None), None)


def _causal(name: str, matrix: Tensor) -> Tensor:
    """The derivative (S, 1, L, q, L, p) with zeros where inputs are later, or a refusal."""
    length = matrix.shape[2]
    later = torch.ones(length, length, dtype=torch.bool, device=matrix.device).triu(1)[:, None, :, None]
    ahead = (matrix.abs() * later).amax((0, 1, 3, 5))
    size = float(matrix.abs().max())
    limit = _ROUNDING[matrix.dtype] * size
    if bool((ahead > limit).any()):
        output, entering = (int(index) for index in (ahead > limit).nonzero()[0])
        raise ModelError(
            f"Mixer {name} must be causal, but its output at position {output} changes with its input at position "
            f"{entering}, by {float(ahead[output, entering]) / size:.1e} of the largest derivative. statesize measures "
            "causal models."
        )
    return matrix.masked_fill(later, 0.0)


def _states(module: nn.Module, matrix: Tensor) -> Tensor | None:
    states = state_size(module)
    return None if states is None else torch.full((matrix.shape[2],), states, device=matrix.device)
