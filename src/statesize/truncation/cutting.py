"""A model over one text: whole, noting what each mixer has before a cut, then with every mixer cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from statesize.adapters.check import check_faithful
from statesize.adapters.forward import Forward
from statesize.adapters.kernels.rotation import Rotation, rotation_of
from statesize.adapters.models.model_state import mapped
from statesize.adapters.models.precision import BOUNDS, relative_difference, stored_dtype
from statesize.adapters.module_call import first_calls
from statesize.adapters.observation import ModuleStack, Observation, Product, Units
from statesize.adapters.runs import Attach, observed, reading
from statesize.adapters.watch import ArgumentCopies
from statesize.codes import Code, Note
from statesize.errors import ModelError
from statesize.operators import Dense, Operator, SoftmaxAttention
from statesize.truncation.behind import POSITIONS, Behind, Memory, attached, whole_model
from statesize.truncation.blocks import dropped, past_block
from statesize.truncation.choices import Basis
from statesize.truncation.choices.past_rows import PastRows
from statesize.truncation.past import HeldAttention, Past
from statesize.truncation.plan import Mixer, PlannedRun
from statesize.truncation.traced import OwnLayers, TracedCall

# Units whose blocks are held at once.
_UNITS = 256
INSIDE = Note(Code.NOT_CUT, "what it mixes is computed inside one of its parts, where it cannot be replaced")


_Bases = dict[tuple[type[Basis], int], Tensor]


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
    _runs: Sequence[PlannedRun] = field(default=(), init=False)
    # Bases that know the past only, by mixer and first unit; then by choice and how many units share them.
    _bases: dict[tuple[str, int], _Bases] = field(default_factory=dict[tuple[str, int], "_Bases"], init=False)
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
        logits = self._over_whole_text(None, attached(self.behind.attach, attach))
        if compare:
            unaltered = cast("Tensor", whole_model(self.forward, self.cut).hidden())[0, -len(logits) - 1 : -1].float()
            name, limit = type(self.forward.model).__name__, BOUNDS[stored_dtype(self.forward.model)]
            difference = relative_difference(logits, unaltered)
            check_faithful(name, difference, "observed, its output behind the cut", limit)
        if not self.whole:
            self.behind.settle(logits, compare=compare)
        return logits

    def logits(self, runs: Sequence[PlannedRun]) -> Iterator[Tensor]:
        """The same of each run, in order."""
        self._runs = runs
        self._bases.clear()
        if not self.behind.sure:
            for run in runs:
                yield self._over_whole_text(run)
            return
        at_once = max(1, POSITIONS // (self.forward.length - self.cut))
        for some in (runs[first : first + at_once] for first in range(0, len(runs), at_once)):
            yield from self.behind.logits(partial(self._memory, runs=some), len(some))

    def _memory(self, held: HeldAttention, runs: Sequence[PlannedRun]) -> Memory:
        """What runs keep of a layer's values."""
        seen = self._pasts[held.name]

        def values(rows: Tensor) -> Tensor:
            pasts = rows[..., : self.cut].flatten(1, 2)
            lost = [self._dropped(held.name, seen, run, past[None]) for run, past in zip(runs, pasts, strict=True)]
            kept = seen.values[:, :, : self.cut] - torch.cat(lost)
            return kept.reshape(*rows.shape[:3], *kept.shape[2:])

        return Memory(values)

    def _over_whole_text(self, run: PlannedRun | None, attach: Attach | None = None) -> Tensor:
        forward, self._run = whole_model(self.forward, self.cut), run
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
            seen = Observation(name, kind, lambda units: operator[:, units], module.values(hidden), mixed)
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
        lost = self._past_part(seen, self._dropped(name, seen, run))
        padded, units = pad(lost, (0, 0, self.cut, 0)), slice(None)
        # Gates act on what T u becomes; biases are in both terms.
        difference = seen.passed_on(padded, units) - seen.passed_on(torch.zeros_like(padded), units)
        changed = seen.mixed.double() - difference
        return changed[:, torch.tensor(order, device=changed.device).argsort()] if order else changed

    def _note(self, name: str, seen: Observation) -> None:
        operator, module, held = seen.operator(slice(None)), self._running.frame.module, self.behind.held
        is_held = self.behind.note(module, name, seen)
        if isinstance(operator, SoftmaxAttention):
            # The layers of this library have no rotary embeddings.
            is_ours = type(self.own.by_method.get(seen.name)).__module__.startswith("statesize.")
            query = operator.query
            self._rotations[name] = turned = Rotation.none(query) if is_ours else rotation_of(self._running, query)
            if turned is None:
                self.unmoved.add(seen.name)
            elif is_held:
                turned = Rotation(turned.cos[: self.cut], turned.sin[: self.cut], turned.J)
                held[module] = replace(held[module], rotation=turned)
        seen = _by_group(seen)
        # What the model computes behind the cut differs in each run; what it has before it does not.
        self._pasts[name] = seen
        if self.sized and name not in self.mixers:
            self.mixers[name] = self._mixer(seen)

    def _mixer(self, seen: Observation) -> Mixer:
        pasts = [Past(seen.operator(units), self.cut) for units in _parts(seen)]
        blocks, size = [past.block() for past in pasts], int(pasts[0].operator.state_size()[self.cut])
        block = blocks[0]
        if block.right is None:
            count = int(torch.stack([past.readable for past in pasts]).any(0).sum())
            inputs, held = min(count, size), size if size < count else None
        else:
            inputs = block.left.shape[-1]
            held = min(inputs, seen.state_size or inputs, block.right.shape[-2])
        readers = seen.values.shape[1] // seen.groups if seen.groups else 1
        joint = Past(seen.operator(slice(None)), self.cut).block(readers) if seen.groups else None
        return Mixer(
            seen.found.multiplicity,
            _numbers(torch.cat([one.entropy[0] for one in blocks])),
            min(block.values.shape[-1], inputs, size),
            inputs,
            held,
            None if joint is None else _numbers(joint.entropy[0]),
        )

    def _dropped(self, name: str, seen: Observation, run: PlannedRun, rows: Tensor | None = None) -> Tensor:
        """What a run drops of the inputs before the cut, (S, units, i, P), where T has these rows behind the cut."""
        inputs, ranks = seen.values[:, :, : self.cut], run.ranks[name].to(seen.values.device)
        if not ranks.any():
            return inputs
        choice, readers, lost = self._choice(name, run), inputs.shape[1] // len(ranks), list[Tensor]()
        for units in _parts(seen):
            own = ranks[units.start // readers : units.stop // readers]
            if choice.hindsight:
                behind = None if rows is None else rows[:, units]
                basis = self._as_exact(name, choice.vectors(Past(seen.operator(units), self.cut, None, behind), own))
            else:
                basis = self._known(name, seen, units)[type(choice), readers]
            # Several inputs of one position lie behind one another.
            given = inputs[:, units].reshape(len(inputs), len(own), readers, basis.shape[-2], -1)
            lost.append(dropped(given, basis[:, :, None], own[:, None]).reshape(inputs[:, units].shape))
        return torch.cat(lost, 1)

    def _known(self, name: str, seen: Observation, units: slice) -> _Bases:
        """Bases of some units that know the past only: those of all runs together, since they share what they read."""
        if (name, units.start) not in self._bases:
            made, past = _Bases(), Past(seen.operator(units), self.cut, self._rotations.get(name))
            for run in self._runs:
                choice, ranks = self._choice(name, run), run.ranks[name].to(seen.values.device)
                readers = seen.values.shape[1] // len(ranks)
                if not choice.hindsight and (type(choice), readers) not in made:
                    own = ranks[units.start // readers : units.stop // readers]
                    made[type(choice), readers] = self._as_exact(name, choice.vectors(past, own))
            self._bases[name, units.start] = made
        return self._bases[name, units.start]

    def _choice(self, name: str, run: PlannedRun) -> Basis:
        return PastRows() if self.mixers[name].held is not None and not run.rule.basis.of_states else run.rule.basis

    def _as_exact(self, name: str, basis: Tensor) -> Tensor:
        """A basis as exact as the model itself, but of states."""
        if self.mixers[name].held is not None or not basis.is_floating_point():
            return basis
        return basis.to(torch.promote_types(self._pasts[name].values.dtype, torch.float32))

    def _past_part(self, seen: Observation, inputs: Tensor) -> Tensor:
        """H u of all units, (S, units, L − i, P), for inputs before the cut."""
        operator = seen.operator(slice(None))
        if isinstance(operator, Dense | SoftmaxAttention):
            # As exact as the model itself.
            block = past_block(operator, self.cut)
            return block @ inputs.to(block.dtype)
        padded = pad(inputs.double(), (0, 0, 0, seen.values.shape[2] - self.cut))
        return operator.to(torch.float64).apply(padded)[:, :, self.cut :]


def _by_group(seen: Observation) -> Observation:
    """The same mixer, its units that read one stored input behind one another."""
    if not seen.order:
        return seen
    order = torch.tensor(seen.order, device=seen.values.device)

    def operator(units: Units) -> Operator:
        return seen.operator(order[units])

    def passed_on(applied: Tensor, units: Units) -> Tensor:
        return seen.passed_on(applied, order[units])

    values, mixed = seen.values[:, order], seen.mixed[:, order]
    return replace(seen, operator=operator, values=values, mixed=mixed, passed_on=passed_on, order=())


def _numbers(tensor: Tensor) -> list[float]:
    return cast("list[float]", tensor.tolist())


def _parts(seen: Observation) -> Iterator[slice]:
    """Units of a mixer, some at once, with all that share a basis."""
    units = seen.values.shape[1]
    readers = units // seen.groups if seen.groups else 1
    step = max(1, _UNITS // readers) * readers
    return (slice(first, min(first + step, units)) for first in range(0, units, step))


def _placed(changed: Tensor, seen: Tensor, result: Tensor) -> Tensor:
    """What a kernel returned, with other numbers where an Observation saw them."""
    copy = torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device=result.device)
    copy.copy_(result)
    offset = seen.storage_offset() - result.storage_offset()
    copy.as_strided(seen.shape, seen.stride(), offset).copy_(changed)
    return copy
