"""Layers without a T: the derivative of what leaves them by what enters, at the input that the model gave them."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from statesize.adapters.check import CAUSES
from statesize.adapters.models.model_state import copied, entering_tensor, returned_tensor
from statesize.adapters.models.precision import differentiable, in_dtype
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.other_inputs import within_blocks
from statesize.adapters.runs import bare
from statesize.adapters.select import is_own_code
from statesize.adapters.watch import named_state_size
from statesize.codes import Code, Note
from statesize.errors import InputError, ModelError
from statesize.operators import BlockDense, Derivative

_NOT_FOUND = (
    "No T was found: a layer that is not linear in its values, as by a maximum, has none. Where yours is linear, "
    "mix all tokens before the output projection, or give its class a method `operator(hidden)` that returns T, as "
    "ss.Dense, or as statesize.operators.BlockDense if it takes several values per token, such as two writes."
)
_DERIVATIVE = (
    "Measured is the derivative of its outputs by its inputs at this text, all channels together. It compares with no "
    "T of one head or channel."
)
_HELD = Note(Code.PART, "its other arguments, as large as the first, are held.")
_EXCEEDED = "It carries more than its `state_size`: where there is no T, that counts the numbers of the whole layer."
# Singular values that are numbers of a state, as parts of the largest.
_STATE = {torch.float64: 1e-8, torch.float32: 1e-4}


def state_size(name: str, module: nn.Module) -> int | None:
    """Numbers that a layer keeps of all channels together: of torch's recurrences, or as it says; None if unknown."""
    if isinstance(module, nn.RNNBase):
        hidden = module.proj_size or module.hidden_size
        return module.num_layers * (hidden + module.hidden_size if module.mode == "LSTM" else hidden)
    said = named_state_size(name, module) if is_own_code(module) else None
    return said if isinstance(said, int) else None


def derivative(name: str, call: ModuleCall) -> tuple[BlockDense | Derivative, Tensor, tuple[Note, ...]]:
    """∂y_i/∂x_j of a module, in float64 where it can be, batch shape (S, 1), what it returned, and notes."""
    states, is_own = state_size(name, call.module), is_own_code(call.module)
    notes = [Note(Code.DERIVATIVE, f"{_NOT_FOUND if is_own else 'It has no T.'} {_DERIVATIVE}")]
    dtype = torch.float64
    try:
        operator, returned = _in_dtype(name, call, states, dtype)
    except RuntimeError:
        # Some layers make tensors of float32 themselves.
        dtype = torch.float32
        try:
            operator, returned = _in_dtype(name, call, states, dtype)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"Mixer {name} must be differentiable, got from torch: {reason}") from error
    if is_own and states is not None and _carries_more(operator, states):
        operator, returned = _in_dtype(name, call, None, dtype)
        notes.append(Note(Code.COUNTED, _EXCEEDED))
    entering = entering_tensor((call.args, dict(call.kwargs)), call.length)
    if entering is not None and any(other.shape == entering.shape for other in call.tensors if other is not entering):
        notes.insert(0, _HELD)
    if is_own and states is None:
        notes.append(Note(Code.UNKNOWN_SIZE, "its `state_size` would say how many the whole layer keeps."))
    return operator if operator.by_products else operator.block_dense(), returned, tuple(notes)


def _carries_more(operator: Derivative, states: int) -> bool:
    """Whether the rank of a block is larger: that of its products with one more random past."""
    length, entries = operator.length, operator.batch_shape.numel()
    # A state that begins anew with each block of the text is empty at its border.
    for number, cut in enumerate([within_blocks(eighth * length // 8, length) for eighth in range(1, 8)]):
        block = operator.jacobian(number % entries, cut, cut)
        past = torch.randn(states + 1, block.columns, generator=torch.Generator().manual_seed(0))
        sigma = cast("Tensor", torch.linalg.svdvals(block.forward(past.double())))
        if len(sigma) > states and bool(sigma[states] > _STATE[operator.point.dtype] * sigma[0]):
            return True
    return False


def _in_dtype(name: str, call: ModuleCall, states: int | None, dtype: torch.dtype) -> tuple[Derivative, Tensor]:
    """The derivative of a copy of a module in a dtype, and what that returned."""
    alone = _copied(call, dtype)
    entering, axis = next((pair for pair in alone.with_positions if pair[0].is_floating_point()), (None, 0))
    if entering is None:
        raise ModelError(f"Mixer {name} takes no tensor with the positions of the text, so it has no derivative.")

    def run(tensor: Tensor) -> tuple[Tensor, int]:
        """What a run with another first input returns, and its dimension of positions."""

        def replaced(leaf: object) -> object:
            return tensor if leaf is entering else leaf

        args, kwargs = tree_map(replaced, (alone.args, dict(alone.kwargs)))

        def called() -> object:
            with differentiable(dtype), torch.set_grad_enabled(tensor.requires_grad):
                return alone.module(*args, **kwargs)

        output = returned_tensor(bare(alone.module, called), (args, kwargs), alone.length)
        leaving = None if output is None else call.leaving(call.module, output)
        if output is None or leaving is None:
            raise ModelError(f"Mixer {name} returns nothing with the positions of the text that has a derivative.")
        return output, leaving

    def by_sequence(tensor: Tensor, axis: int) -> Tensor:
        """(S, 1, L, channels)."""
        return tensor.movedim(axis, 0).reshape(call.length, call.texts, 1, -1).movedim(0, 2)

    def function(inputs: Tensor) -> Tensor:
        """(S, 1, L, p) to (S, 1, L, q)."""
        placed = inputs.movedim(2, 0).reshape(entering.movedim(axis, 0).shape).movedim(0, axis)
        return by_sequence(*run(placed))

    returned, _ = run(entering)
    sizes = None if states is None else torch.full((call.length,), states)
    try:
        return Derivative(function, by_sequence(entering, axis), sizes), returned.detach()
    except InputError as error:
        code, reason = Note.of(error).code, str(error).removeprefix("function ")
        if code is Code.LOOKS_AHEAD:
            both_ways = getattr(call.module, "bidirectional", False)
            reason = f"{reason} {'Set its `bidirectional` to False.' if both_ways else CAUSES}"
        raise ModelError(Note(code, f"Mixer {name} {reason}")) from error


def _copied(call: ModuleCall, dtype: torch.dtype) -> ModuleCall:
    """The same call of a copy of the module in another dtype."""
    made = dict[int, Tensor]()

    def converted(leaf: object) -> object:
        # What a layer is called with twice stays one tensor.
        return made.setdefault(id(leaf), in_dtype(leaf.detach(), dtype)) if isinstance(leaf, Tensor) else leaf

    module = in_dtype(copied(call.module), dtype).requires_grad_(False)
    args, kwargs = tree_map(converted, (call.args, dict(call.kwargs)))
    return replace(call, module=module, args=args, kwargs=kwargs)
