"""Runs of a model in which what each mixer carries past a cut is noted, or replaced by its best low rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.check import check_faithful
from statesize.adapters.forward import Forward
from statesize.adapters.kernels.rotation import Rotation, rotation_of
from statesize.adapters.models.model_state import known_options
from statesize.adapters.models.precision import BOUNDS, relative_difference, stored_dtype
from statesize.adapters.observation import ModuleStack, Observation, Product, Units
from statesize.adapters.runs import observed
from statesize.codes import Code, Note
from statesize.errors import ModelError
from statesize.operators import Dense, Operator, Recurrence, SoftmaxAttention
from statesize.operators.stepped import Stepped
from statesize.truncation.blocks import PastBlock, dropped, past_block, readable
from statesize.truncation.causal import PastReading
from statesize.truncation.continuation import Continuation, rows_behind
from statesize.truncation.curves import MeasuredCurves, expected_tokens, prefix_layer
from statesize.truncation.runs import MixerSpectra, PlannedRun

# Units whose blocks are held at once.
_UNITS = 256
_INSIDE = Note(Code.NOT_CUT, "what it mixes is computed inside one of its parts, where it cannot be replaced")


@dataclass(eq=False)
class Cutting:
    """All runs of a model over one text with a cut: one that notes, then those with every mixer cut.

    Attributes:
        forward: The model and the text.
        cut: Position i.
        own: Modules with a method `operator`, by name.
        whole: Mixers that are left as they are, with the reason, by name; it grows in the run that notes.
        curves: By which tokens of a cache are chosen, where a run does.
        unmoved: Attention whose queries nothing that is known moves behind the cut.
        causal: All runs without hindsight; the first one chooses for all, since their past is the same.
        run: The present one; None in that which notes.
        spectra: Those of each mixer, by name, in the order of calls.
    """

    forward: Forward
    cut: int
    own: Mapping[str, nn.Module]
    whole: dict[str, Note]
    curves: MeasuredCurves | None = None
    unmoved: set[str] = field(default_factory=set[str])
    causal: Sequence[PlannedRun] = ()
    run: PlannedRun | None = field(default=None, init=False)
    spectra: dict[str, MixerSpectra] = field(default_factory=dict[str, MixerSpectra], init=False)
    continuation: Continuation = field(init=False)
    _choices: dict[str, Choices] = field(default_factory=dict[str, "Choices"], init=False)
    _rotations: dict[str, Rotation | None] = field(default_factory=dict[str, "Rotation | None"], init=False)
    _calls: Counter[str] = field(default_factory=Counter[str], init=False)
    _running: ModuleStack = field(init=False)

    def __post_init__(self) -> None:
        self.continuation = Continuation(self.cut, self.forward.length)

    def logits(self, run: PlannedRun | None = None) -> Tensor:
        """Logits from the cut on without the last, (L − i − 1, V) float32."""
        # Without a run nothing is cut, and spectra are noted.
        forward, self.run = self.forward, run
        self._calls.clear()
        if run is not None and self.continuation.sure:
            return self.continuation.logits(forward, self._behind)
        count = forward.length - self.cut

        def attach(stack: ExitStack) -> None:
            if run is None:
                self.continuation.attach(forward.parts, stack)
            for name, module in self.own.items():
                original = cast("Any", module).mixed_values
                vars(module)["mixed_values"] = self._mixing(name, module, original)
                stack.callback(vars(module).pop, "mixed_values")

        kept = known_options(forward.model, logits_to_keep=count)
        whole = replace(forward, backbone=forward.model, kwargs={**forward.kwargs, **kept})
        self._running = ModuleStack(forward.parts, forward.length)
        logits = whole.hidden(
            observed, running=self._running, record=self._observe, sources=whole.sources, attach=attach
        )
        if logits is None:
            raise ModelError(f"{type(forward.model).__name__} must return logits, got no tensor. Load a causal model.")
        behind = logits[0, -count:-1].float()
        if run is None:
            unaltered = cast("Tensor", whole.hidden())[0, -count:-1].float()
            limit = BOUNDS[stored_dtype(forward.model)]
            difference = relative_difference(behind, unaltered)
            check_faithful(type(forward.model).__name__, difference, "observed, its output behind the cut", limit)
            if not self.whole:
                self.continuation.settle(forward, behind, self.spectra)
        return behind

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

    def _observe(self, make: Callable[[], Observation], product: Product | None = None) -> Tensor | None:
        if any(frame.module in self.own.values() for frame in self._running.frames):
            return None
        # Products that are taken here are none of the model's.
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            try:
                seen = make()
            except ModelError as error:
                self.whole.setdefault(self._running.frame.name, Note.of(error))
                return None
            if seen.inner:
                return None
            if product is None or (
                seen.mixed.untyped_storage().data_ptr() != product.mixed.untyped_storage().data_ptr()
            ):
                self.whole.setdefault(seen.name, _INSIDE)
                return None
            changed = self._changed(seen)
            return None if changed is None else _placed(changed, seen.mixed, product.mixed)

    def _behind(self, seen: Observation) -> Tensor:
        """Y behind the cut, (1, units, L − i, P), of attention with every H_i at its rank."""
        name, order = self._called(seen), seen.order
        seen = _by_group(seen)
        rows = rows_behind(cast("SoftmaxAttention", seen.operator(slice(None))), self.cut)
        rest = self.dropped(name, seen)
        if rest is None:
            rest = self._at_best(name, seen, rows)
        kept = self.inputs(seen) - rest.to(seen.values.dtype)
        return _in_order(rows @ torch.cat([kept, seen.values[:, :, self.cut :]], 2), order)

    def _called(self, seen: Observation) -> str:
        """The name of a call of a mixer, of which a run may have several."""
        count = self._calls[seen.name]
        self._calls[seen.name] += 1
        return f"{seen.name}@{count}" if count else seen.name

    def _changed(self, seen: Observation) -> Tensor | None:
        """Y with every H_i at its rank; None in a run that notes, and of a mixer that is left whole."""
        name = self._called(seen)
        if not self.whole.keys().isdisjoint((name, seen.name)):
            return None
        order = seen.order
        if self.run is None:
            self._rotation(name, seen)
            self.continuation.note(self._running.frame.module, name, seen)
            self.spectra[name] = self._noted(_by_group(seen))
            return None
        seen = _by_group(seen)
        rest = self.dropped(name, seen)
        lost = self._at_best(name, seen) if rest is None else self._past_part(seen, rest)
        padded = torch.nn.functional.pad(lost, (0, 0, self.cut, 0))
        # Gates act on what T u becomes; biases are in both terms.
        units = slice(None)
        difference = seen.passed_on(padded, units) - seen.passed_on(torch.zeros_like(padded), units)
        return _in_order(seen.mixed.double() - difference, order)

    def dropped(self, name: str, seen: Observation) -> Tensor | None:
        """What the run drops of the inputs before the cut, (S, units, i, P); None where that depends on what reads."""
        run = cast("PlannedRun", self.run)
        if run.rule == "nothing":
            return self.inputs(seen)
        if not run.causal:
            return None
        if name not in self._choices:
            self._choices[name] = self._chosen(name, seen)
        return self._choices[name].dropped(run, run.ranks[name].to(seen.values.device), self.inputs(seen))

    def _noted(self, seen: Observation) -> MixerSpectra:
        blocks, operators = [block for _, block in self._blocks(seen)], list(map(seen.operator, _parts(seen)))
        inputs, size = blocks[0].left.shape[-1], int(operators[0].state_size()[self.cut])
        if blocks[0].right is None:
            inputs = int(torch.stack([readable(operator, self.cut) for operator in operators]).any(0).sum())
        rank = min(blocks[0].values.shape[-1], inputs, size)
        return MixerSpectra(
            seen.kind,
            seen.found.multiplicity,
            torch.cat([block.entropy[0] for block in blocks]).cpu(),
            torch.cat([block.norm[0] for block in blocks]).cpu(),
            torch.tensor([rank]),
            torch.tensor([inputs]),
            min(inputs, seen.state_size or inputs, blocks[0].columns),
            blocks[0].right is not None,
            self._stacks(seen).entropy[0].cpu() if seen.groups else None,
        )

    def _blocks(self, seen: Observation, rows: Tensor | None = None) -> Iterator[tuple[slice, PastBlock]]:
        """H_i of the units of a mixer, some at once; from rows of T behind the cut where they are known."""
        for part in _parts(seen):
            known = None if rows is None else PastBlock(rows[:, part, :, : self.cut])
            yield part, known or PastBlock.of(seen.operator(part), self.cut)

    def _stacks(self, seen: Observation, rows: Tensor | None = None) -> PastBlock:
        """H_i of the units of each group, one below the other, (S, groups, units of a group · (L − i), i)."""
        matrix = past_block(seen.operator(slice(None)), self.cut) if rows is None else rows[..., : self.cut]
        return PastBlock(matrix.reshape(len(matrix), seen.groups, -1, matrix.shape[-1]))

    def inputs(self, seen: Observation) -> Tensor:
        """Inputs u of all units before the cut, (S, units, i, P)."""
        return seen.values[:, :, : self.cut]

    def _chosen(self, name: str, seen: Observation) -> Choices:
        """What all runs without hindsight keep of what a mixer has before the cut."""
        rotation, operator, units = self._rotation(name, seen), seen.operator(slice(None)), seen.values.shape[1]
        state = isinstance(operator, Recurrence | Stepped)
        tokens = {run.rule for run in self.causal if run.of_tokens and not state}
        found: dict[PlannedRun, list[Tensor]] = {run: [] for run in self.causal if run.rule not in tokens}
        past_tokens: list[Tensor] = []
        for part in _parts(seen):
            reading, inputs = PastReading(seen.operator(part), self.cut, rotation), self.inputs(seen)[:, part]
            for readers in dict.fromkeys(self._readers(run, seen) for run in found):
                alike, basis = [run for run in found if self._readers(run, seen) == readers], reading.rows(readers)
                # Several inputs of one position lie behind one another.
                given = inputs.reshape(*inputs.shape[:2], basis.shape[-2], -1)
                # As exact as the model itself, but for states.
                given, basis = (given.to(basis.dtype), basis) if state else (given, basis.to(given.dtype))
                ranks = torch.stack([run.ranks[name].repeat_interleave(readers)[part] for run in alike])
                for run, rest in zip(alike, dropped(given, basis, ranks[:, None].to(basis.device)), strict=True):
                    found[run].append(rest.reshape(inputs.shape).float())
            if tokens:
                past_tokens.append(reading.tokens())
        orders = dict.fromkeys(tokens, torch.cat(past_tokens, 1)) if tokens else {}
        if tokens and isinstance(operator, SoftmaxAttention):
            layer = partial(prefix_layer, name, operator, seen.values, self.cut, rotation)
            if "expected tokens" in tokens:
                orders["expected tokens"] = expected_tokens(layer(units))[None]
            if self.curves is not None and name in self.curves.errors:
                order = self.curves.order(layer(seen.groups or units))
                orders["tokens by curves"] = order.repeat_interleave(units // len(order), 0)[None]
        return Choices(
            {run: torch.cat(each, 1) for run, each in found.items()},
            {rule: order.argsort(-1) for rule, order in orders.items()},
        )

    def _readers(self, run: PlannedRun, seen: Observation) -> int:
        """How many units share a choice of a run."""
        groups = seen.groups
        return seen.values.shape[1] // groups if run.grouped and groups else 1

    def _rotation(self, name: str, seen: Observation) -> Rotation | None:
        """What moves queries of attention behind the cut, which a run over the whole text shows."""
        operator = seen.operator(slice(None))
        if not isinstance(operator, SoftmaxAttention):
            return None
        if name not in self._rotations:
            # The layers of this library have no rotary embeddings.
            is_ours = type(self.own.get(seen.name)).__module__.startswith("statesize.")
            query = operator.query
            self._rotations[name] = Rotation.none(query) if is_ours else rotation_of(self._running, query)
        if self._rotations[name] is None:
            self.unmoved.add(seen.name)
        return self._rotations[name]

    def _past_part(self, seen: Observation, inputs: Tensor) -> Tensor:
        """H u of all units, (S, units, L − i, P), for inputs before the cut."""
        operator = seen.operator(slice(None))
        if isinstance(operator, Dense | SoftmaxAttention):
            # As exact as the model itself.
            block = past_block(operator, self.cut)
            return block @ inputs.to(block.dtype)
        padded = torch.nn.functional.pad(inputs.double(), (0, 0, 0, seen.values.shape[2] - self.cut))
        return operator.to(torch.float64).apply(padded)[:, :, self.cut :]

    def _at_best(self, name: str, seen: Observation, rows: Tensor | None = None) -> Tensor:
        """What outputs lose at the rank of each unit or group; what is dropped of the inputs, where rows are given."""
        run = cast("PlannedRun", self.run)
        ranks = run.ranks[name].to(seen.values.device)
        if run.grouped and (groups := seen.groups):
            inputs = self.inputs(seen)
            inputs = inputs.reshape(len(inputs), groups, -1, *inputs.shape[2:])
            rest = self._stacks(seen, rows).dropped(inputs, ranks).flatten(1, 2)
            return self._past_part(seen, rest) if rows is None else rest
        parts: list[Tensor] = []
        for units, block in self._blocks(seen, rows):
            inputs = seen.values[:, units, : self.cut]
            # Several inputs of one position lie behind one another.
            inputs = inputs.reshape(*inputs.shape[:2], block.columns, -1)
            parts.append((block.lost if rows is None else block.dropped)(inputs, ranks[units]))
        return torch.cat(parts, 1)


@dataclass(frozen=True, eq=False)
class Choices:
    """What runs without hindsight keep of one mixer.

    Attributes:
        numbers: What a run drops of the inputs before the cut, (S, units, i, P).
        places: Where each input of the past stands in the order of a rule of tokens, (1, units, c).
    """

    numbers: dict[PlannedRun, Tensor]
    places: dict[str, Tensor]

    def dropped(self, run: PlannedRun, ranks: Tensor, inputs: Tensor) -> Tensor:
        """What a run drops of inputs (S, units, i, P), given its rank of each unit or group."""
        if run in self.numbers:
            return self.numbers[run]
        places = self.places[run.rule]
        kept = places < ranks.repeat_interleave(places.shape[1] // len(ranks))[:, None]
        return inputs.masked_fill(kept[..., None], 0.0)


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


def _in_order(by_group: Tensor, order: Sequence[int]) -> Tensor:
    """What there is of each unit, (S, units, …), in the module's own order."""
    return by_group[:, torch.tensor(order, device=by_group.device).argsort()] if order else by_group


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
