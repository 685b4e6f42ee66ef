"""T of a module, read from one run of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import position_axis
from statesize.adapters.module_call import ModuleCall
from statesize.adapters.other_inputs import Change, other_text
from statesize.adapters.trace.channels import Softmax, TracedMixing
from statesize.adapters.trace.choose import Search
from statesize.adapters.trace.labels import Labels, ahead, distance, own, placed, width
from statesize.adapters.trace.loops import joined
from statesize.adapters.trace.replay import Piece, before
from statesize.adapters.trace.run import ROUNDING, Run, UnplacedError, at_once, batched, first_run, ran, replayed
from statesize.codes import Code, Note
from statesize.errors import ModelError

_DRAWS = 3
"""Other futures where the text chooses places, as of the highest scores, which may fall on the same ones."""
_MOST_CUTS = 64
_COPIES = frozenset({"clone", "_to_copy", "native_dropout"})
_SOFTMAX = "_softmax", "_safe_softmax"
_AROUND_SCORES = "add", "sub", "mul", "div", "masked_fill", "where", "tril"


class NoOperatorError(ModelError):
    """A module that mixes positions and has no T; its argument is a Note."""


class Trace:
    """One run of a module; what is returned by modules that are held, as they are measured already, is given."""

    def __init__(self, call: ModuleCall, held: Collection[nn.Module] = ()) -> None:
        self.call, self.held = call, frozenset(held)
        self._run = first_run(call, self.held)
        self._values = self._run.tape.values
        self._require_output()
        # What Python was told of tensors that depend on the text, by which it may decide which operations run.
        escapes = ((told, node.inputs) for node, told in self._run.tape.escapes)
        told = [told for told, inputs in escapes if any(tensor in self._labels.of for _, tensor in inputs)]
        change = other_text(slice(None))
        agrees = self._agrees(self._other_run(change))
        if not agrees and not self._takes_another_way(ran(call, self.held, self.dtype, change), told):
            raise ModelError(Note(Code.OUTSIDE_TORCH, f"must not use `.item()` or numpy. {Code.OUTSIDE_TORCH.cure}"))
        self._follows = agrees and not told

    @property
    def dtype(self) -> torch.dtype:
        """The least dtype that it ran in: float64, or float32 where the author's code knows no other."""
        return self._run.dtype

    @property
    def returned(self) -> Tensor:
        """What the module returned."""
        return self._values[self._run.output]

    def _require_output(self) -> None:
        """Refuse an output without positions, or with NaN of the first module that makes it."""
        length, got, fault = self.call.length, "", ""
        if not bool(self.returned.isfinite().all()):
            got, advice = "NaN or infinity", "Check the model's weights and inputs for values that are not finite."
            fault = f"must return finite numbers, got {got}. {advice}"
        elif self.call.leaving(self.call.module, self.returned) is None:
            got = f"no dimension of positions, but {tuple(self.returned.shape)}"
            fault = f"mixes positions and must return one output for each of the {length}, got {got}."
        if fault and (self.held or not width(self._labels.of.get(self._run.output), length)):
            raise UnplacedError(f"must return an output for each position, got {got}.")
        if fault:
            raise ModelError(Note(Code.NOT_MEASURED, fault))

    @cached_property
    def _axes(self) -> dict[int, int]:
        """The dimensions of positions of what enters, and of what modules returned that are measured already."""
        run, found = self._run, dict(self._run.entering)
        for module in self.held:
            found |= {tensor: self.call.leaving(module, self._values[tensor]) for tensor in run.returned[module]}
        return {tensor: axis for tensor, axis in found.items() if axis is not None}

    @cached_property
    def _labels(self) -> Labels:
        """Labels of the whole run."""
        given = {tensor: own(self._values[tensor].shape, axis, self.call.length) for tensor, axis in self._axes.items()}
        return Labels(self._run.tape, self.call.length, given)

    @cached_property
    def _taken(self) -> Labels:
        """Labels where choices are taken as the run took them."""
        labels = self._labels
        return Labels(labels.tape, labels.length, labels.given, labels) if labels.has_choices else labels

    @cached_property
    def _axis(self) -> int:
        """The dimension of positions of the output, by what its entries depend on where several have that size."""
        length, label = self.call.length, self._taken.of.get(self._run.output)
        axes = [dim for dim, size in enumerate(self.returned.shape) if size == length]
        usual = cast("int", self.call.leaving(self.call.module, self.returned))
        if len(axes) < 2 or label is None:
            return usual

        def rank(axis: int) -> tuple[int, int, bool]:
            return max(0, int(ahead(label, axis, length).max())), distance(label, axis, length), axis != usual

        return min(axes, key=rank)

    def _other_run(self, change: Change) -> Run:
        return ran(self.call, self.held, self.dtype, change, recorded=False)

    def _agrees(self, again: Run) -> bool:
        """Whether these operations make of other values what that run does."""
        mine, rounding = self._run, ROUNDING[self._run.dtype]
        for module in self.held:
            for ours, theirs in zip(mine.of(mine.returned[module]), again.of(again.returned[module]), strict=False):
                if ours.shape != theirs.shape:
                    raise ModelError(
                        f"{type(module).__name__} must return the same shape for other numbers, got {tuple(ours.shape)}"
                        f" and {tuple(theirs.shape)}, as of routed tokens. What is mixed around it is not measured."
                    )
        pairs = zip((*mine.entering, *mine.given), again.of((*again.entering, *again.given)), strict=False)
        try:
            found, its = replayed(mine.tape.nodes, self._values, dict(pairs), mine.leaving), again.of(again.leaving)
        except RuntimeError:
            # Sizes that the text decides.
            return False
        return len(found) == len(its) and all(_close(*pair, rounding) for pair in zip(found, its, strict=True))

    def _takes_another_way(self, again: Run, told: list[object]) -> bool:
        """Whether the text decides on other operations in that run, and no number reaches them outside of torch."""
        mine, its = self._run.tape, again.tape
        known = {*self._run.entering, *self._run.given, *mine.made}
        for node, other in zip(mine.nodes, its.nodes, strict=False):
            shapes = [mine.values[out].shape for out in node.outs]
            if node.name != other.name or shapes != [its.values[out].shape for out in other.outs]:
                # As of sizes, where it is the same operation.
                depends = any(tensor in self._labels.of for _, tensor in node.inputs)
                return bool(told) or (node.name == other.name and depends)
            pairs = zip(node.inputs, other.inputs, strict=False)
            pairs = ((ours, theirs) for (_, ours), (_, theirs) in pairs if ours not in known)
            if not all(_close(mine.values[ours], its.values[theirs], 0.0) for ours, theirs in pairs):
                return False
        return bool(told) and not any(isinstance(value, float | complex) for value in told)

    def looks_ahead(self) -> Note | None:
        """The first position that depends on a later one, of what the module returns, or of what enters held ones."""
        # Labels say where a later position may be read, and other futures whether it is.
        of, has_choices, length, output = self._labels.of, self._labels.has_choices, self.call.length, self._run.output
        axes = {output: self._axis}
        for module in self.held:
            # Those of no later position than their own may have another dimension of the text's length, as of texts.
            entered = self._entered(module).items()
            axes |= {number: axis for number, axis in entered if number in of and placed(of[number], length) is None}
        doubt = {number: ahead(of[number], axis, length) > 0 for number, axis in axes.items() if number in of}
        if not self._follows:
            # Of what is decided outside of torch labels say nothing.
            doubt = {output: torch.ones(length, dtype=torch.bool)}
        axes = {number: axes[number] for number, where in doubt.items() if bool(where.any())}
        if not axes:
            return None
        cuts = cast("list[int]", (torch.stack([*doubt.values()]).any(0)[:-1].nonzero().flatten() + 1).tolist())
        count = min(_MOST_CUTS, len(cuts))
        cuts = [cuts[round(at * (len(cuts) - 1) / max(1, count - 1))] for at in range(count)]
        draws, generator = _DRAWS if has_choices or not self._follows else 1, torch.Generator().manual_seed(2)
        changes = [(cut, other_text(slice(cut, None), generator)) for cut in cuts * draws]
        for cut, again in self._futures(changes, [*axes]):
            for (number, axis), other in zip(axes.items(), again, strict=True):
                given, now = (tensor.movedim(axis, 0) for tensor in (self._values[number], other))
                largest = ROUNDING[self.dtype] * given.abs().max()
                changed = (now[:cut] - given[:cut]).abs().reshape(cut, -1).amax(1) > largest
                if bool(changed.any()):
                    first = f"its position {int(changed.nonzero()[0])} of {length}"
                    return Note(Code.LOOKS_AHEAD, f"{first} depends on positions from {cut} on.")
        return None

    def _futures(
        self, changes: Collection[tuple[int, Change]], wanted: list[int]
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """What the operations make of other texts, or what runs of these return where they take other operations."""
        if not self._follows:
            for cut, change in changes:
                run = self._other_run(change)
                yield cut, run.of([run.output])
            return
        texts = [[*self._changed(change).values()] for _, change in changes]
        nodes, values = self._run.tape.nodes, self._values

        def again(entering: Sequence[Tensor]) -> list[Tensor]:
            return replayed(nodes, values, dict(zip(self._axes, entering, strict=True)), wanted)

        # In low precision a batch rounds otherwise than one text.
        is_rounded = any(value.dtype in (torch.float16, torch.bfloat16) for value in values)
        replays = batched(again, texts, 1 if is_rounded else at_once(nodes, values))
        for (cut, _), found in zip(changes, replays, strict=True):
            if found is None:
                raise ModelError(Note(Code.OUTSIDE_TORCH, "must have sizes that do not depend on the text."))
            yield cut, [*found]

    def _changed(self, change: Change) -> dict[int, Tensor]:
        """What enters, and what held modules returned, with other numbers."""
        return {tensor: change(self._values[tensor].detach().clone(), axis) for tensor, axis in self._axes.items()}

    def _replay(self, change: Change) -> list[Tensor] | None:
        """The tensors of a run of other tensors that enter; None where it takes another way."""
        try:
            wanted = range(len(self._values))
            found = replayed(self._run.tape.nodes, self._values, self._changed(change), wanted)
        except RuntimeError:
            return None
        return found if [tensor.shape for tensor in found] == [tensor.shape for tensor in self._values] else None

    @cached_property
    def search(self) -> Search:
        """Where T may begin and end."""
        return Search(self._taken, self._run, self.call, self._axis, self._replay)

    def mixing(self) -> TracedMixing | None:
        """T, and what is mixed around it; None where nothing is mixed, a `NoOperatorError` where there is no T."""
        if not distance(self._taken.of.get(self._run.output), self._axis, self.call.length):
            return None
        found = self.search.choose()
        if found is None and (tape := joined(self._run.tape, self._taken)) is not None:
            self._run, self._values = replace(self._run, tape=tape), tape.values
            for name in ("_labels", "_taken", "search"):
                vars(self).pop(name, None)
            found = self.search.choose()
        if found is None:
            relations = self._taken.relations.items()
            smeared = {node.name for node, relation in relations if not relation.is_exact and "fft" not in node.name}
            unknown = Note(Code.UNKNOWN_OPERATION, ", ".join(sorted(smeared)))
            raise NoOperatorError(unknown if smeared else Note(Code.NOT_LINEAR))
        return replace(found, softmax=self._softmax(found.piece))

    def found(self) -> TracedMixing | None:
        """T; None where there is none."""
        try:
            return self.mixing()
        except ModelError:
            return None

    def _softmax(self, piece: Piece) -> Softmax | None:
        """The softmax over positions whose weights a map is made of; None where there is none."""
        values, length, texts, uses = self._values, self.call.length, self.call.texts, piece.uses
        taken = [tensor for node in piece.nodes for at, (_, tensor) in enumerate(node.inputs) if (node, at) not in uses]
        computed = ((tensor, self._run.tape.made.get(self._origin(tensor))) for tensor in taken)
        number, made = next(((tensor, by) for tensor, by in computed if by and by.name in _SOFTMAX), (0, None))
        if made is None:
            return None
        scores, weights = values[made.inputs[0][1]], values[made.outs[0]]
        largest = float(scores.where(weights > 0, 0).abs().max())
        # Other entries of a softmax, such as of a sink, are no weights of positions.
        weights = weights if weights.shape[-2:] == (length, length) else values[number]
        if not weights.numel() or weights.numel() % (texts * length**2):
            return None
        last = self._run.tape.made.get(self._origin(made.inputs[0][1], *_AROUND_SCORES))
        factors = [] if last is None else [values[factor] for _, factor in last.inputs[-2:]]
        parts = [part for part in factors if part.ndim > 2 and len(part) % texts == 0]
        is_whole = len(parts) == 2 and scores.numel() == weights.numel()
        are_scored = is_whole and _are_scored(parts[0], parts[1], length)
        keys = [parts[1].reshape(texts, -1, *parts[1].shape[-2:]).mT] if are_scored else []
        return Softmax(weights.reshape(texts, -1, length, length), largest, keys)

    def _origin(self, tensor: int, *through: str) -> int:
        """The tensor that another one was made of by moves of its entries and some other operations."""
        tape, labels = self._run.tape, self._labels
        while (made := tape.made.get(tensor)) and (made.name in _COPIES.union(through) or labels.moves(made)):
            size = self._values[made.outs[0]].numel()
            inputs = [number for _, number in made.inputs if number in labels.of]
            inputs = [number for number in inputs if not through or self._values[number].numel() == size]
            if not inputs:
                break
            tensor = inputs[0]
        return tensor

    def is_of_kernel(self, mixing: TracedMixing) -> bool:
        """Recognise T of a kernel that adapters saw in the module; True where these do not say what it mixes."""
        sides = mixing.piece.start, mixing.piece.end
        kernels = [[self._origin(side.tensor) for side in kernel] for kernel in self._run.kernels]
        return not kernels or [self._origin(side.tensor) for side in sides] in kernels

    def mixed_before(self) -> nn.Module | None:
        """A held module of whose input positions were mixed before; None where there is none."""
        for module in self.held:
            entered = self._entered(module).items()
            if any(distance(self._taken.of.get(tensor), axis, self.call.length) for tensor, axis in entered):
                return module
        return None

    def _entered(self, module: nn.Module) -> dict[int, int]:
        """The tensors that entered a held module, with their dimension of positions."""
        entered, found = self._run.entered[module], self.call.placed.get(module)
        axes = [position_axis(self._values[tensor], self.call.length) for tensor in entered]
        axes = found.entering if found is not None and len(found.entering) == len(entered) else axes
        return {tensor: axis for tensor, axis in zip(entered, axes, strict=True) if axis is not None}

    def feeding(self, mixing: TracedMixing) -> list[nn.Module]:
        """The held modules of whose outputs the values of a T are made."""
        return self._in(self._made_of([mixing.piece.start.tensor, *mixing.factors]))

    def apart(self, mixing: TracedMixing) -> list[nn.Module]:
        """The held modules whose outputs the module returns, or gates by, otherwise than through T and its values."""
        feeding, end = self.feeding(mixing), mixing.piece.end.tensor
        return [module for module in self._in(self._made_of([self._run.output], [end])) if module not in feeding]

    def contains(self, mixing: TracedMixing, parts: Collection[nn.Module]) -> bool:
        """Whether parts of the module lie between the values of a T and what becomes of them."""
        made = {out for node in mixing.piece.nodes for out in node.outs}
        return not any(made.isdisjoint(self._run.returned[part]) for part in parts)

    def _in(self, tensors: Collection[int]) -> list[nn.Module]:
        """The held modules that have returned one of some tensors."""
        return [module for module in self.held if any(tensor in tensors for tensor in self._run.returned[module])]

    def _made_of(self, tensors: Collection[int], but: Collection[int] = ()) -> set[int]:
        """Tensors, and all that they are made of otherwise than through some."""
        ends = {*tensors} - {*but}
        nodes = before(self._run.tape, ends, but)
        return ends.union(tensor for node in nodes for _, tensor in node.inputs if tensor not in but)


def _close(ours: Tensor, theirs: Tensor, rounding: float) -> bool:
    if ours.shape != theirs.shape or not theirs.is_floating_point():
        return torch.equal(ours, theirs)
    ours, theirs = (part.double().nan_to_num() for part in (ours, theirs))
    return bool(((ours - theirs).abs() <= rounding * theirs.abs().max()).all()) if theirs.numel() else True


def _are_scored(query: Tensor, key: Tensor, length: int) -> bool:
    """Whether two tensors are queries (…, L, d), perhaps of several heads in a row, and keys (…, d, L)."""
    heads, stored = query[..., 0].numel(), key[..., 0, :].numel()
    is_placed = query.shape[-2] % length == 0 and key.shape[-1] == length
    return is_placed and heads % stored == 0 and query.shape[-1] == key.shape[-2]
