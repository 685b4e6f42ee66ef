"""Layers that no adapter knows: T of each call is read from its trace, and what follows T runs again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.kernels.rotation import Rotation
from statesize.adapters.models.model_state import mapped
from statesize.adapters.models.precision import stored_dtype
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.observation import FoundMixer, Observation, Units
from statesize.adapters.trace.channels import channels
from statesize.adapters.trace.layer import observe
from statesize.adapters.trace.modules import OwnMixing
from statesize.adapters.trace.replay import Piece
from statesize.adapters.trace.run import ROUNDING, Place
from statesize.adapters.trace.trace import Trace, TracedMixing
from statesize.adapters.watch import ArgumentCopies, Call, first_argument
from statesize.codes import Note
from statesize.errors import ModelError
from statesize.operators import Operator


@dataclass(eq=False)
class Known:
    """What is known of the mixers of a model, of which one is a module that no adapter knows, or its name."""

    # Modules with methods `operator`, `values` and `mixed_values`; those of which T is read from a trace, and what is
    # known of these; and what earlier calls have shown, such as sizes, which are not found for each call anew.
    by_method: Mapping[str, nn.Module] = field(default_factory=dict[str, nn.Module])
    traced: Mapping[str, nn.Module] = field(default_factory=dict[str, nn.Module])
    found: OwnMixing = field(default_factory=OwnMixing)
    earlier: dict[str, FoundMixer] = field(default_factory=dict[str, FoundMixer])
    # Mixers that are left as they are, with the reason; and rotary embeddings of queries, by name and length.
    whole: dict[str, Note] = field(default_factory=dict[str, Note])
    rotations: dict[tuple[str, int], Rotation | None] = field(default_factory=dict[tuple[str, int], "Rotation | None"])
    shared: tuple[tuple[str, ...], ...] = ()  # mixers that read one cache, for each cache of several
    sure: bool = False  # whether runs behind a cut were seen to be those of the model


@dataclass(frozen=True, eq=False)
class TracedCall:
    """One call of a module of which T was read from a trace."""

    seen: Observation  # what it mixed
    _call: ModuleCall
    _trace: Trace
    _mixing: TracedMixing

    @classmethod
    def of(cls, forward: Forward, name: str, module: nn.Module, arguments: Any, known: Known) -> Self:
        """Trace a module with the arguments and keyword arguments of a call; a ModelError where it has no T."""
        args, kwargs = mapped(arguments, ArgumentCopies())
        call = ModuleCall.of(forward, Call(name, module, args, kwargs, [], stored_dtype(module)))
        call = replace(call, named=known.found.part_of(module))
        trace = Trace(call)
        if (mixing := trace.mixing()) is None:
            raise ModelError(f"{name} mixes positions in its first call, and none in this one.")
        layer = known.found.layers.get(name)
        seen = observe(name, call, mixing, known.earlier.get(name) if layer is None else layer.found)
        known.earlier[name] = seen.found
        if hasattr(module, "operator"):
            stated = cast("Operator", cast("Any", module).operator(first_argument(name, args, kwargs)))
            T = mixing.matrix
            most = ROUNDING[torch.float32] * T.abs().max()
            # A recurrence is cut by its state, which a matrix does not show.
            if stated.batch_shape == T.shape[:2] and bool((stated.dense() - T).abs().max() <= most):

                def operator(units: Units) -> Operator:
                    return stated[:, units]

                seen = replace(seen, operator=operator)
        return cls(seen, call, trace, mixing)

    def changed(self, output: Any, mixed: Tensor) -> Any:
        """What the module returns where T passes on other numbers (S, unit, L, P) than those that it returned for."""
        returned = self._call.returned(output)
        if returned is None:
            return output
        # The difference alone is added, so that nothing changes where T passes on the same.
        other = returned + (self._behind(mixed) - self._trace.returned).to(returned)
        return mapped(output, lambda leaf: other if leaf is returned else leaf)

    def _behind(self, mixed: Tensor) -> Tensor:
        """What the operations behind T make of other numbers."""
        piece, tape = self._mixing.piece, self._mixing.piece.graph.tape
        rounding = ROUNDING[torch.float64 if self._mixing.in_double else torch.float32]
        units = channels(piece, self._call.texts, rounding)
        if units is None:
            raise ModelError(f"{self.seen.name} mixes channels.")
        numbers, start = piece.ended.clone(), piece.end
        numbers[:, units.target] = mixed.permute(2, 0, 1, 3).to(numbers)
        placed = piece.values[start.tensor].movedim(start.axis, 0)
        end = numbers.reshape(placed.shape).movedim(0, start.axis)
        if (output := tape.ref(self._trace.returned)) == start.tensor:
            return end
        uses = {(node, at) for node in tape.nodes for at, (_, ref) in enumerate(node.inputs) if ref == start.tensor}
        return Piece(piece.graph, start, Place(output, 0), uses, piece.values)(end)
