"""A model over texts of one length: whole, noting what each mixer has before a cut, then with every mixer cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
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
from statesize.adapters.observation import ModuleStack, Observation, Product
from statesize.adapters.runs import Attach, observed, reading
from statesize.adapters.watch import ArgumentCopies
from statesize.codes import Code, Note
from statesize.errors import ModelError
from statesize.measurement.metrics import entropy_ess
from statesize.operators import Dense, Operator, SoftmaxAttention
from statesize.truncation.behind import Behind, HeldAttention, Memory
from statesize.truncation.blocks import Past, dropped, past_block
from statesize.truncation.choices import RULES, PastRows, Rule
from statesize.truncation.traced import Known, TracedCall

# Units whose blocks are held at once.
_UNITS = 256
INSIDE = Note(Code.NOT_CUT, "what it mixes is computed inside one of its parts, where it cannot be replaced")


@dataclass(frozen=True)
class Mixer:
    """What the whole run shows of one mixer at a cut."""

    multiplicity: int  # channels of each unit
    entropy: Sequence[float]  # entropy-ESS of each unit
    most: int  # the largest rank that H_i can have, of any unit
    inputs: int  # inputs of the past, or numbers of a state, that there are to choose from
    held: int | None  # numbers of a state that there are behind the cut; None for what keeps inputs themselves
    joint: Sequence[float] | None  # entropy-ESS of the stack of each group's units, or None without groups

    def sizes(self, unit: str) -> Tensor:
        """Entropy-ESS of what a unit of a rule is, (units,) or (groups,)."""
        sizes = self.entropy if unit == "head" or self.joint is None else self.joint
        return torch.tensor(sizes, dtype=torch.float64)

    def ranks(self, rule: Rule, numbers: Tensor) -> Tensor:
        """⌈numbers⌉ of each unit of a rule, at most what there is."""
        # The stack of a group may have more rows, and a larger rank, than one of its units; without hindsight a choice
        # may need all that there is. A state holds no more numbers than there were inputs.
        most = self.most if rule.unit == "head" and rule.basis.hindsight else self.inputs
        return torch.ceil(numbers - 1e-9).clamp(0, most if self.held is None else min(most, self.held)).long()


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of the model in which every mixer is cut."""

    rule: Rule
    scale: float
    ranks: dict[str, Tensor]  # for each mixer by its name the rank of each unit of the rule
    kept: float  # mean numbers per channel that are kept


def planned_runs(mixers: dict[str, Mixer], others: Sequence[dict[str, Mixer]] = ()) -> list[PlannedRun]:
    """All runs of one cut, by what the whole runs show of the mixers of this text and of others."""
    grouped = any(mixer.joint is not None for mixer in mixers.values())
    states = all(mixer.held is not None for mixer in mixers.values())
    planned: list[PlannedRun] = []
    for rule in RULES.values():
        texts = others if rule.other_texts else [mixers]
        if not texts or (rule.unit == "cache" and not grouped) or (states and not rule.basis.of_states):
            continue
        sizes = {name: torch.stack([text[name].sizes(rule.unit) for text in texts]).mean(0) for name in mixers}
        for scale in rule.scales:
            ranks = {name: mixers[name].ranks(rule, scale * size) for name, size in sizes.items()}
            planned.append(PlannedRun(rule, scale, ranks, _mean(mixers, ranks)))
    return planned


@dataclass(eq=False)
class Cutting:
    """All runs of a model over texts of one length with a cut: one that notes, then those with every mixer cut."""

    forward: Forward
    cut: int
    known: Known = field(default_factory=Known)
    # What the whole run shows of each mixer, in the order of calls, of each text; known before, or not asked for.
    mixers: list[dict[str, Mixer]] = field(default_factory=list[dict[str, Mixer]])
    sized: bool = True
    behind: Behind = field(init=False)
    _run: Sequence[PlannedRun] | None = field(default=None, init=False)  # one of each text
    _pasts: dict[str, Observation] = field(default_factory=dict[str, Observation], init=False)
    # Units before the cut, by mixer, text and first unit; bases that know nothing else, by choice and how many units
    # share them too.
    _units: dict[Any, Past] = field(default_factory=dict[Any, Past], init=False)
    _bases: dict[Any, Tensor] = field(default_factory=dict[Any, Tensor], init=False)
    _calls: Counter[str] = field(default_factory=Counter[str], init=False)
    _running: ModuleStack = field(init=False)
    _entered: dict[nn.Module, Any] = field(default_factory=dict[nn.Module, Any], init=False)

    def __post_init__(self) -> None:
        self.behind = Behind(self.forward, self.cut)
        self.mixers = self.mixers or [{} for _ in range(self.forward.sequences)]
        if self.known.traced:
            first_calls(self.forward, self.known.traced.values())

    def read(self, *attach: Attach) -> Tensor:
        """Logits of the whole model from the cut on without the last, (S, L − i − 1, V) float32; mixers are noted."""
        logits, compare = self._over_whole_text(None, self.behind.attach, *attach), not self.known.sure
        if compare:
            unaltered = cast("Tensor", whole_model(self.forward, self.cut).hidden())
            name, limit = type(self.forward.model).__name__, BOUNDS[stored_dtype(self.forward.model)]
            difference = relative_difference(logits, unaltered[:, self.cut - self.forward.length : -1].float())
            check_faithful(name, difference, "observed, its output behind the cut", limit)
        if not self.known.whole:
            self.behind.settle(logits, compare=compare)
        self.known.sure = self.behind.sure
        return logits

    def logits(self, runs: Sequence[Sequence[PlannedRun]]) -> Iterator[tuple[int, PlannedRun, Tensor]]:
        """The number of the text, the run and its logits (L − i − 1, V), of runs by the same rules of each text."""
        if self.behind.sure:
            yield from self.behind.each(runs, self._memory)
            return
        for together in zip(*runs, strict=True):
            pairs = zip(together, self._over_whole_text(together), strict=True)
            yield from ((text, *each) for text, each in enumerate(pairs))

    def _memory(self, held: HeldAttention, runs: Sequence[PlannedRun]) -> Memory:
        """What runs of a text keep of a layer's values."""
        seen, text = self._pasts[held.name], held.text

        def values(rows: Tensor) -> Tensor:
            pasts = zip(runs, rows[..., : self.cut].flatten(1, 2), strict=True)
            dropped_inputs = torch.cat([self._dropped(held.name, seen, text, run, past[None]) for run, past in pasts])
            kept = seen.values[text : text + 1, :, : self.cut] - dropped_inputs
            return kept.reshape(*rows.shape[:3], *kept.shape[2:])

        return Memory(values)

    def _over_whole_text(self, run: Sequence[PlannedRun] | None, *attach: Attach) -> Tensor:
        forward, self._run = whole_model(self.forward, self.cut), run
        self._calls.clear()

        def attach_own(stack: ExitStack) -> None:
            for hook in attach:
                hook(stack)
            for name, module in self.known.by_method.items():
                original = cast("Any", module).mixed_values
                vars(module)["mixed_values"] = self._mixing(name, module, original)
                stack.callback(vars(module).pop, "mixed_values")
            leave = {module: partial(self._leave, name) for name, module in self.known.traced.items()}
            reading(dict.fromkeys(leave, self._enter), leave, stack)

        self._running = ModuleStack(forward.parts, forward.length, sequences=forward.sequences, sources=forward.sources)
        logits = forward.hidden(observed, running=self._running, record=self._observe, attach=attach_own)
        if logits is None:
            raise ModelError(f"{type(forward.model).__name__} must return logits, got no tensor. Load a causal model.")
        return logits[:, self.cut - forward.length : -1].float()

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
        if self._running.closed or name in self.known.whole:
            return output
        try:
            with self._running.unseen():
                call = TracedCall.of(self.forward, name, module, self._entered.pop(module), self.known)
        except ModelError as error:
            if self._run is not None:
                raise
            self.known.whole[name] = Note(Code.NOT_CUT, str(Note.of(error)))
            return output
        changed = self._changed(call.seen)
        return output if changed is None else call.changed(output, changed)

    def _observe(self, make: Callable[[], Observation], product: Product | None = None) -> Tensor | None:
        own = {*self.known.by_method.values(), *self.known.traced.values()}
        if any(frame.module in own for frame in self._running.frames):
            return None
        # Products that are taken here are none of the model's.
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            try:
                seen = make()
            except ModelError as error:
                self.known.whole.setdefault(self._running.frame.name, Note.of(error))
                return None
            if product is None or (
                seen.mixed.untyped_storage().data_ptr() != product.mixed.untyped_storage().data_ptr()
            ):
                self.known.whole.setdefault(seen.name, INSIDE)
                return None
            changed = self._changed(seen)
            return None if changed is None else _placed(changed, seen.mixed, product.mixed)

    def _changed(self, seen: Observation) -> Tensor | None:
        """Y with every H_i cut as the runs say; None in the run that notes, and of a mixer that is left whole."""
        count = self._calls[seen.name]
        self._calls[seen.name] += 1
        name = f"{seen.name}@{count}" if count else seen.name
        if not self.known.whole.keys().isdisjoint((name, seen.name)):
            return None
        if seen.order or self.known.shared:
            # Only neighbours are cut together, and what several layers must hold together is in no run.
            seen = replace(seen, groups=0)
        if self._run is None:
            self._note(name, seen)
            return None
        dropped_inputs = torch.cat([self._dropped(name, seen, text, run) for text, run in enumerate(self._run)])
        padded, units = pad(self._past_part(seen, dropped_inputs), (0, 0, self.cut, 0)), slice(None)
        # Gates act on what T u becomes; biases are in both terms.
        difference = seen.passed_on(padded, units) - seen.passed_on(torch.zeros_like(padded), units)
        return seen.mixed.double() - difference

    def _note(self, name: str, seen: Observation) -> None:
        operator, module, held = seen.operator(slice(None)), self._running.frame.module, self.behind.held
        is_held, place = self.behind.note(module, name, seen), (name, self.forward.length)
        if isinstance(operator, SoftmaxAttention):
            if place not in self.known.rotations:
                # The layers of this library have no rotary embeddings.
                is_ours = type(self.known.by_method.get(seen.name)).__module__.startswith("statesize.")
                query = operator.query
                self.known.rotations[place] = Rotation.none(query) if is_ours else rotation_of(self._running, query)
            turned = self.known.rotations[place]
            if turned is not None and is_held:
                turned = Rotation(turned.cos[: self.cut], turned.sin[: self.cut], turned.J)
                held[module] = [replace(attention, rotation=turned) for attention in held[module]]
        self._pasts[name] = seen
        for text, mixers in enumerate(self.mixers):
            if self.sized and name not in mixers:
                mixers[name] = self._mixer(seen, text)

    def _mixer(self, seen: Observation, text: int = 0) -> Mixer:
        pasts = [Past(_of_text(seen, units, text), self.cut) for units in _parts(seen)]
        blocks, size = [past.block() for past in pasts], int(pasts[0].operator.state_size()[self.cut])
        block = blocks[0]
        if block.right is None:
            count = int(torch.stack([past.readable for past in pasts]).any(0).sum())
            inputs, held = min(count, size), size if size < count else None
        else:
            inputs = block.left.shape[-1]
            held = min(inputs, seen.state_size or inputs, block.right.shape[-2])
        joint = None
        if seen.groups:
            stacks = Past(_of_text(seen, slice(None), text), self.cut).block(seen.units // seen.groups)
            joint = lists(entropy_ess(stacks.values)[0])
        entropy, most = torch.cat([entropy_ess(part.values)[0] for part in blocks]), block.values.shape[-1]
        return Mixer(seen.multiplicity, lists(entropy), min(most, inputs, size), inputs, held, joint)

    def _dropped(self, name: str, seen: Observation, text: int, run: PlannedRun, rows: Tensor | None = None) -> Tensor:
        """What a run drops of the inputs of a text before the cut, (1, units, i, P), where T has these rows behind."""
        inputs = seen.values[text : text + 1, :, : self.cut]
        ranks, is_state = run.ranks[name].to(inputs.device), self.mixers[0][name].held is not None
        if not ranks.any():
            return inputs
        choice = PastRows() if is_state and not run.rule.basis.of_states else run.rule.basis
        readers, parts = seen.units // len(ranks), list[Tensor]()
        for units in _parts(seen):
            own, place = ranks[units.start // readers : units.stop // readers], (name, text, units.start)
            basis = self._bases.get((place, type(choice), readers))
            if basis is None:
                # What the model computes behind the cut differs in each run; what it has before it does not.
                if choice.hindsight:
                    past = Past(_of_text(seen, units, text), self.cut, None, None if rows is None else rows[:, units])
                elif (past := self._units.get(place)) is None:
                    rotation = self.known.rotations.get((name, self.forward.length))
                    past = self._units[place] = Past(_of_text(self._pasts[name], units, text), self.cut, rotation)
                basis = choice.vectors(past, own)
                if not is_state and basis.is_floating_point():
                    # As exact as the model itself.
                    basis = basis.to(torch.promote_types(inputs.dtype, torch.float32))
                if not choice.hindsight:
                    self._bases[place, type(choice), readers] = basis
            # Several inputs of one position lie behind one another.
            given = inputs[:, units].reshape(1, len(own), readers, basis.shape[-2], -1)
            parts.append(dropped(given, basis[:, :, None], own[:, None]).reshape(inputs[:, units].shape))
        return torch.cat(parts, 1)

    def _past_part(self, seen: Observation, inputs: Tensor) -> Tensor:
        """H u of all units, (S, units, L − i, P), for inputs before the cut."""
        operator = seen.operator(slice(None))
        if isinstance(operator, Dense | SoftmaxAttention):
            # As exact as the model itself.
            block = past_block(operator, self.cut)
            return block @ inputs.to(block.dtype)
        padded = pad(inputs.double(), (0, 0, 0, seen.values.shape[2] - self.cut))
        return operator.to(torch.float64).apply(padded)[:, :, self.cut :]


def whole_model(forward: Forward, cut: int) -> Forward:
    """Runs that return logits from a cut on."""
    kept = known_options(forward.model, logits_to_keep=forward.length - cut)
    return replace(forward, backbone=forward.model, kwargs={**forward.kwargs, **kept})


def _of_text(seen: Observation, units: slice, text: int) -> Operator:
    return seen.operator(units)[text : text + 1]


def lists(numbers: Tensor) -> list[Any]:
    """Numbers as JSON holds them."""
    return cast("list[Any]", numbers.tolist())


def _parts(seen: Observation) -> Iterator[slice]:
    """Units of a mixer, some at once, with all that share a basis."""
    readers = seen.units // (seen.groups or seen.units)
    step = max(1, _UNITS // readers) * readers
    return (slice(first, min(first + step, seen.units)) for first in range(0, seen.units, step))


def _placed(changed: Tensor, seen: Tensor, result: Tensor) -> Tensor:
    """What a kernel returned, with other numbers where an Observation saw them."""
    copy = torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device=result.device)
    copy.copy_(result)
    offset = seen.storage_offset() - result.storage_offset()
    copy.as_strided(seen.shape, seen.stride(), offset).copy_(changed)
    return copy


def mean_sizes(mixers: dict[str, Mixer]) -> tuple[float, float, float, float]:
    """Means per channel: entropy-ESS, largest rank, inputs that can be kept, and the same over stored channels."""
    each, inputs = mixers.values(), [mixer.inputs for mixer in mixers.values()]
    channels, stored = ([mixer.multiplicity * len(mixer.sizes(unit)) for mixer in each] for unit in ("head", "cache"))
    entropy, most = [fmean(mixer.entropy) for mixer in each], [mixer.most for mixer in each]
    return fmean(entropy, channels), fmean(most, channels), fmean(inputs, channels), fmean(inputs, stored)


def _mean(mixers: dict[str, Mixer], numbers: dict[str, Tensor]) -> float:
    """Mean over all channels of a number for each unit, or over all stored channels of one for each group."""
    total = sum(float(numbers[name].sum()) * mixer.multiplicity for name, mixer in mixers.items())
    return total / sum(len(numbers[name]) * mixer.multiplicity for name, mixer in mixers.items())
