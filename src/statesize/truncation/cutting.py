"""A model over one text: whole, noting what each mixer has before a cut, then with every mixer cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from statesize.adapters.check import check_faithful
from statesize.adapters.forward import Forward
from statesize.adapters.kernels.rotation import Rotation, rotation_of
from statesize.adapters.models.model_state import known_options, mapped
from statesize.adapters.models.precision import BOUNDS, relative_difference, stored_dtype
from statesize.adapters.module_call import first_calls
from statesize.adapters.observation import ModuleStack, Observation, Product, Units
from statesize.adapters.runs import Attach, observed, reading
from statesize.adapters.watch import ArgumentCopies
from statesize.codes import Code, Note
from statesize.errors import ModelError
from statesize.operators import Dense, Operator, SoftmaxAttention
from statesize.truncation.behind import POSITIONS, Behind, Memory
from statesize.truncation.blocks import PastBlock, dropped, past_block, readable
from statesize.truncation.choices.choice import HeldAttention
from statesize.truncation.choices.past import PastReading
from statesize.truncation.plan import Mixer, PlannedRun, Rule
from statesize.truncation.traced import OwnLayers, TracedCall

# Units whose blocks are held at once.
_UNITS = 256
INSIDE = Note(Code.NOT_CUT, "what it mixes is computed inside one of its parts, where it cannot be replaced")


@dataclass(eq=False)
class Cutting:
    """All runs of a model over one text with a cut: one that notes, then those with every mixer cut."""

    forward: Forward
    cut: int
    own: OwnLayers = field(default_factory=OwnLayers)
    # Mixers that are left as they are, with the reason; attention whose queries nothing moves behind the cut; and what
    # the whole run shows of each mixer, in the order of calls, unless it is known before, or not asked for.
    whole: dict[str, Note] = field(default_factory=dict[str, Note])
    unmoved: set[str] = field(default_factory=set[str])
    mixers: dict[str, Mixer] = field(default_factory=dict[str, Mixer])
    sized: bool = True
    behind: Behind = field(init=False)
    _run: PlannedRun | None = field(default=None, init=False)
    _pasts: dict[str, Observation] = field(default_factory=dict[str, Observation], init=False)
    _chosen: dict[tuple[str, str, int], Tensor] = field(default_factory=dict[tuple[str, str, int], Tensor], init=False)
    _rotations: dict[str, Rotation | None] = field(default_factory=dict[str, "Rotation | None"], init=False)
    _calls: Counter[str] = field(default_factory=Counter[str], init=False)
    _running: ModuleStack = field(init=False)
    _entered: dict[nn.Module, Any] = field(default_factory=dict[nn.Module, Any], init=False)

    def __post_init__(self) -> None:
        self.behind = Behind(self.forward, self.cut)
        if self.own.traced:
            first_calls(self.forward, self.own.traced.values())

    def read(self, attach: Attach | None = None, *, compare: bool = True) -> Tensor:
        """Logits of the whole model from the cut on without the last, (L − i − 1, V) float32; mixers are noted."""
        # `attach` reads more in this run; `compare` says whether it is compared with runs that nothing observes.

        def attach_all(stack: ExitStack) -> None:
            self.behind.attach(stack)
            if attach is not None:
                attach(stack)

        logits = self._over_whole_text(None, attach_all)
        if compare:
            unaltered = cast("Tensor", self._whole.hidden())[0, -len(logits) - 1 : -1].float()
            name, limit = type(self.forward.model).__name__, BOUNDS[stored_dtype(self.forward.model)]
            difference = relative_difference(logits, unaltered)
            check_faithful(name, difference, "observed, its output behind the cut", limit)
        if not self.whole:
            self.behind.settle(logits, self._pasts, compare=compare)
        return logits

    def logits(self, runs: Sequence[PlannedRun]) -> Iterator[Tensor]:
        """The same of each run, in order."""
        if not self.behind.sure:
            for run in runs:
                yield self._over_whole_text(run)
            return
        at_once = max(1, POSITIONS // (self.forward.length - self.cut))
        # Runs of a kind do the same to each layer.
        for alike in (list(some) for _, some in groupby(runs, lambda run: (run.rule.choice, run.rule.unit))):
            for some in (alike[first : first + at_once] for first in range(0, len(alike), at_once)):
                yield from self.behind.logits(partial(self._memory, runs=some), len(some))

    @property
    def _whole(self) -> Forward:
        forward = self.forward
        kept = known_options(forward.model, logits_to_keep=forward.length - self.cut)
        return replace(forward, backbone=forward.model, kwargs={**forward.kwargs, **kept})

    def _over_whole_text(self, run: PlannedRun | None, attach: Attach | None = None) -> Tensor:
        forward, self._run = self._whole, run
        self._calls.clear()

        def attach_own(stack: ExitStack) -> None:
            if attach is not None:
                attach(stack)
            for name, module in self.own.by_method.items():
                original = cast("Any", module).mixed_values
                vars(module)["mixed_values"] = self._mixing(name, module, original)
                stack.callback(vars(module).pop, "mixed_values")
            leave = {module: partial(self._leave, name) for name, module in self.own.traced.items()}
            reading(dict.fromkeys(leave, self._enter), leave, stack)

        self._running = ModuleStack(forward.parts, forward.length, sources=forward.sources)
        logits = forward.hidden(observed, running=self._running, record=self._observe, attach=attach_own)
        if logits is None:
            raise ModelError(f"{type(forward.model).__name__} must return logits, got no tensor. Load a causal model.")
        return logits[0, self.cut - forward.length : -1].float()

    def _mixing(self, name: str, module: Any, original: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """The method `mixed_values` of a module with an operator of its own."""

        def mixed_values(hidden: Tensor) -> Tensor:
            mixed = original(hidden)
            operator: Operator = module.operator(hidden)
            kind = str(getattr(module, "kind", type(module).__name__))
            seen = Observation(name, kind, lambda units: operator[:, units], module.values(hidden), mixed, None, 0)
            changed = self._changed(seen)
            return mixed if changed is None else changed.to(mixed.dtype)

        return mixed_values

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._running.closed:
            self._entered[module] = mapped((args, kwargs), ArgumentCopies())

    def _leave(self, name: str, module: nn.Module, _: tuple[Any, ...], output: object) -> object:
        """What a module returns of which T is read from a trace."""
        if self._running.closed or name in self.whole:
            return output
        try:
            with self._running.unseen():
                call = TracedCall.of(self.forward, name, module, self._entered.pop(module), self.own)
        except ModelError as error:
            if self._run is not None:
                raise
            self.whole[name] = Note(Code.NOT_CUT, str(Note.of(error)))
            return output
        changed = self._changed(call.seen)
        return output if changed is None else call.changed(output, changed)

    def _observe(self, make: Callable[[], Observation], product: Product | None = None) -> Tensor | None:
        if any(frame.module in self.own for frame in self._running.frames):
            return None
        # Products that are taken here are none of the model's.
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            try:
                seen = make()
            except ModelError as error:
                self.whole.setdefault(self._running.frame.name, Note.of(error))
                return None
            if product is None or (
                seen.mixed.untyped_storage().data_ptr() != product.mixed.untyped_storage().data_ptr()
            ):
                self.whole.setdefault(seen.name, INSIDE)
                return None
            changed = self._changed(seen)
            return None if changed is None else _placed(changed, seen.mixed, product.mixed)

    def _changed(self, seen: Observation) -> Tensor | None:
        """Y with every H_i cut as the run says; None in the run that notes, and of a mixer that is left whole."""
        count, order = self._calls[seen.name], seen.order
        self._calls[seen.name] += 1
        name = f"{seen.name}@{count}" if count else seen.name
        if not self.whole.keys().isdisjoint((name, seen.name)):
            return None
        if (run := self._run) is None:
            self._note(name, seen)
            return None
        seen = _by_group(seen)
        if run.rule.choice == "hindsight":
            rest = self._dropped_at_best(seen, run.ranks[name].to(seen.values.device), run.rule)
        else:
            rest = self._dropped(name, seen, run)[None]
        lost = self._past_part(seen, rest)
        padded, units = pad(lost, (0, 0, self.cut, 0)), slice(None)
        # Gates act on what T u becomes; biases are in both terms.
        difference = seen.passed_on(padded, units) - seen.passed_on(torch.zeros_like(padded), units)
        changed = seen.mixed.double() - difference
        return changed[:, torch.tensor(order, device=changed.device).argsort()] if order else changed

    def _note(self, name: str, seen: Observation) -> None:
        operator, module, held = seen.operator(slice(None)), self._running.frame.module, self.behind.held
        if isinstance(operator, SoftmaxAttention):
            # The layers of this library have no rotary embeddings.
            is_ours = type(self.own.by_method.get(seen.name)).__module__.startswith("statesize.")
            query = operator.query
            turned = Rotation.none(query) if is_ours else rotation_of(self._running, query)
            self._rotations[name] = turned
            if turned is None:
                self.unmoved.add(seen.name)
            # Heads of a cache stand beside each other in what attention functions are given.
            if not seen.order and self.behind.note(module, name, seen) and turned is not None:
                turned = Rotation(turned.cos[: self.cut], turned.sin[: self.cut], turned.J)
                held[module] = replace(held[module], rotation=turned)
        seen = _by_group(seen)
        # What the model computes behind the cut differs in each run; what it has before it does not.
        self._pasts[name] = seen
        if self.sized and name not in self.mixers:
            self.mixers[name] = self._mixer(seen)

    def _mixer(self, seen: Observation) -> Mixer:
        parts = list(_parts(seen))
        operators = list(map(seen.operator, parts))
        blocks = [PastBlock.of(operator, self.cut) for operator in operators]
        size = int(operators[0].state_size()[self.cut])
        if blocks[0].right is not None:
            inputs = blocks[0].left.shape[-1]
            held = min(inputs, seen.state_size or inputs, blocks[0].columns)
        else:
            count = int(torch.stack([readable(operator, self.cut) for operator in operators]).any(0).sum())
            inputs = min(count, size)
            held = size if size < count else None
        return Mixer(
            seen.found.multiplicity,
            torch.cat([block.entropy[0] for block in blocks]).cpu(),
            min(blocks[0].values.shape[-1], inputs, size),
            inputs,
            held,
            self._stacks(seen).entropy[0].cpu() if seen.groups else None,
        )

    def _stacks(self, seen: Observation) -> PastBlock:
        """H_i of the units of each group, one below the other, (S, groups, units of a group · (L − i), i)."""
        matrix = past_block(seen.operator(slice(None)), self.cut)
        return PastBlock(matrix.reshape(len(matrix), seen.groups, -1, matrix.shape[-1]))

    def _memory(self, held: HeldAttention, runs: Sequence[PlannedRun]) -> Memory:
        """What runs of one kind keep of a layer's values."""
        rule, shape, groups = runs[0].rule, held.query.shape[:2], self._pasts[held.name].groups
        inputs = held.value[:, None, : held.cut].expand(*shape, -1, -1)
        if rule.choice != "hindsight":
            seen = self._pasts[held.name]
            rest = torch.stack([self._dropped(held.name, seen, run) for run in runs]).to(inputs.dtype)
            return Memory(inputs - rest.reshape(len(runs), *inputs.shape))
        ranks = torch.stack([run.ranks[held.name] for run in runs]).to(inputs.device)

        def at_best(rows: Tensor) -> Tensor:
            past, units = rows[..., : held.cut], inputs.flatten(0, 1)
            # (R, groups, rows of all heads of a group, i), or without groups those of each head.
            count = groups if rule.unit == "cache" and groups else len(units)
            block = PastBlock(past.reshape(len(past), count, -1, held.cut))
            given = units.reshape(count, -1, *units.shape[1:]).expand(len(past), -1, -1, -1, -1)
            rest = block.dropped(given if count < len(units) else given[:, :, 0], ranks)
            return inputs - rest.reshape(len(past), *inputs.shape)

        return Memory(at_best)

    def _dropped(self, name: str, seen: Observation, run: PlannedRun) -> Tensor:
        """What a run drops of the inputs before the cut without hindsight, (units, i, P)."""
        rule, inputs = run.rule, seen.values[0, :, : self.cut]
        if rule.choice == "nothing":
            return inputs
        readers = len(inputs) // seen.groups if rule.unit == "cache" and seen.groups else 1
        choice = "rows" if self.mixers[name].held is not None else rule.choice
        key = name, choice, readers
        if key not in self._chosen:
            readings = [PastReading(seen.operator(part), self.cut, self._rotations.get(name)) for part in _parts(seen)]
            found = [one.tokens() if choice == "tokens" else one.rows(readers) for one in readings]
            self._chosen[key] = torch.cat(found, 1)[0]
            if choice == "rows" and self.mixers[name].held is None:
                # As exact as the model itself, but for states.
                self._chosen[key] = self._chosen[key].to(inputs.dtype)
        chosen, ranks = self._chosen[key], run.ranks[name].to(inputs.device).repeat_interleave(readers)
        if choice == "tokens":
            return inputs.masked_fill((chosen.argsort(-1) < ranks[:, None])[..., None], 0.0)
        # Several inputs of one position lie behind one another.
        given = inputs.reshape(len(inputs), chosen.shape[-2], -1)
        given = given if self.mixers[name].held is None else given.to(chosen.dtype)
        return dropped(given, chosen, ranks).reshape(inputs.shape).float()

    def _past_part(self, seen: Observation, inputs: Tensor) -> Tensor:
        """H u of all units, (S, units, L − i, P), for inputs before the cut."""
        operator = seen.operator(slice(None))
        if isinstance(operator, Dense | SoftmaxAttention):
            # As exact as the model itself.
            block = past_block(operator, self.cut)
            return block @ inputs.to(block.dtype)
        padded = pad(inputs.double(), (0, 0, 0, seen.values.shape[2] - self.cut))
        return operator.to(torch.float64).apply(padded)[:, :, self.cut :]

    def _dropped_at_best(self, seen: Observation, ranks: Tensor, rule: Rule) -> Tensor:
        """What the best basis of the rank of each unit or group drops of the inputs before the cut."""
        inputs = seen.values[:, :, : self.cut]
        if rule.unit == "cache" and seen.groups:
            stacked = inputs.reshape(len(inputs), seen.groups, -1, *inputs.shape[2:])
            return self._stacks(seen).dropped(stacked, ranks).flatten(1, 2)
        rest: list[Tensor] = []
        for units in _parts(seen):
            block, part = PastBlock.of(seen.operator(units), self.cut), inputs[:, units]
            # Several inputs of one position lie behind one another.
            given = part.reshape(*part.shape[:2], block.columns, -1)
            rest.append(block.dropped(given, ranks[units]).reshape(part.shape))
        return torch.cat(rest, 1)


def _by_group(seen: Observation) -> Observation:
    """The same mixer, its units that read one stored input behind one another."""
    if not seen.order:
        return seen
    order = torch.tensor(seen.order, device=seen.values.device)

    def operator(units: Units) -> Operator:
        return seen.operator(order[units])

    def passed_on(applied: Tensor, units: Units) -> Tensor:
        return seen.passed_on(applied, order[units])

    return replace(
        seen,
        operator=operator,
        values=seen.values[:, order],
        mixed=seen.mixed[:, order],
        passed_on=passed_on,
        order=(),
    )


def _parts(seen: Observation) -> Iterator[slice]:
    """Units of a mixer, some at once."""
    units = seen.values.shape[1]
    return (slice(first, min(first + _UNITS, units)) for first in range(0, units, _UNITS))


def _placed(changed: Tensor, seen: Tensor, result: Tensor) -> Tensor:
    """What a kernel returned, with other numbers where an Observation saw them."""
    copy = torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device=result.device)
    copy.copy_(result)
    offset = seen.storage_offset() - result.storage_offset()
    copy.as_strided(seen.shape, seen.stride(), offset).copy_(changed)
    return copy
