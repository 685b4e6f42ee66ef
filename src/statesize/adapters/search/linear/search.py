"""From which of its tensors to which a module mixes positions linearly, by runs with other numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from statesize.adapters.search.linear.channels import Channels, codes, grouped, read_channels
from statesize.adapters.search.lone.mixing import HOW_ELSE, answer_of
from statesize.adapters.search.lone.other_inputs import (
    changed_at,
    changed_input,
    changed_text,
    earlier_halves,
    narrowed,
)
from statesize.adapters.search.lone.runs import (
    OUTPUT,
    LoneRuns,
    ModuleRun,
    OtherTensorError,
    Place,
    Precision,
    by_position,
    like,
    noise,
    reached,
)
from statesize.codes import Code, Note
from statesize.errors import ModelError


@dataclass(frozen=True)
class Mix:
    """A module's mixing of positions: linear from one of its tensors, the source, to another, the target.

    Attributes:
        source_axis: The source's dimension of positions.
        channels: Heads and channels.
        reach: How many later positions it acts on.
        before: How many positions are mixed into the source before; 0 for none.
        behind: How many positions the target is mixed over once more; 0 for none.
        operations: Number of operations of the module, by which places are numbered.
        precision: What the module computed in.
    """

    source: Place
    source_axis: int
    target: Place
    target_axis: int
    channels: Channels
    reach: int
    before: int
    behind: int
    operations: int
    precision: Precision


def described_part(before: int, behind: int) -> Note | None:
    """A note on a mixing before or behind T, over so many positions, that T lacks; None where there is none."""
    sides = (before, "before"), (behind, "behind")
    outside = [f"a mixing of {others + 1} positions {side} it" for others, side in sides if others]
    return Note(Code.PART, f"T is without {' and '.join(outside)}.") if outside else None


class NoOperatorError(ModelError):
    """A module that mixes positions, and has no T that was found."""


class OtherOperationsError(NoOperatorError):
    """A run with other operations or sizes than the plain one, so that its tensors are not those of the same places."""


class LinearSearch:
    """Runs of a module with other numbers at one of its positions, or in one of its tensors."""

    def __init__(self, runs: LoneRuns, name: str, position: int, keep: Collection[Place] | None) -> None:
        self.runs, self.name, self.position, self.precision = runs, name, position, runs.precision
        self.base = runs.run(keep)
        again = self.run(keep, change=self.other_input)
        self.answers = {
            place: answer
            for place, tensor in self.base.tensors.items()
            if (answer := answer_of(tensor, again.tensors[place], runs.length, position, self.precision.rounding))
        }
        with suppress(OtherOperationsError):
            self._leave_out_mingled(keep)
        self.partial: set[Place] = set()  # sources beside which more is mixed
        self._changed_by: dict[Place, set[Place]] = {}
        self.weighed: dict[tuple[Place, Place, Place | None], int] = {}  # how far one reaches into what T makes
        self.stages: dict[Place, int] = {}  # mixed tensors through which all goes, and how far it is mixed once more

    def _leave_out_mingled(self, keep: Collection[Place] | None) -> None:
        """Leave out tensors whose sequences are not the first of their channels, as of heads before texts."""
        if (sequences := self.runs.sequences) < 2:
            return
        last = self.run(keep, change=partial(changed_text, length=self.runs.length, sequences=sequences))

        def mingles(place: Place) -> bool:
            difference = self.matrix(last, place) - self.matrix(self.base, place)
            if difference.shape[1] % sequences:
                # What all texts share.
                return False
            first = difference.reshape(len(difference), sequences, -1)[:, :-1]
            return bool(first.abs().max() > self.precision.rounding * self.scale(place))

        # Where texts act on each other, nothing is known by that.
        if OUTPUT in self.answers and not mingles(OUTPUT):
            self.answers = {place: answer for place, answer in self.answers.items() if not mingles(place)}

    def other_input(self, tensor: Tensor) -> Tensor:
        """An argument with other numbers at one position."""
        return changed_input(tensor, self.runs.length, self.position)

    def run(
        self,
        keep: Collection[Place] | None,
        replacing: Mapping[Place, Callable[[Tensor], Tensor]] | None = None,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> ModuleRun:
        """A run of the same operations as the plain one."""
        try:
            run = self.runs.run(keep, replacing, change)
        except OtherTensorError:
            run = None
        if run is None or run.operations != self.base.operations:
            raise OtherOperationsError(
                f"Mixer {self.name} does other operations where its numbers are others, so that impulses cannot find "
                f"its T. {HOW_ELSE}"
            )
        base = self.base.tensors
        kept = base if keep is None else run.tensors.keys() & base.keys()
        if any(place not in run.tensors or run.tensors[place].shape != base[place].shape for place in kept):
            raise OtherOperationsError(
                f"Mixer {self.name} has tensors of other sizes where its numbers are others, as if each of its experts "
                f"runs on the tokens that are routed to it, so that impulses cannot find its T. {HOW_ELSE}"
            )
        return run

    def from_outside(self) -> LinearSearch:
        """The same search where all that enters the module changes."""
        outside = copy.copy(self)
        outside.runs = replace(self.runs, entry=None)
        vars(outside).pop("elsewhere", None)
        return outside

    def matrix(self, run: ModuleRun, place: Place) -> Tensor:
        """A tensor of a run as (L, channels)."""
        return by_position(run.tensors[place], self.answers[place].axis)

    def sources(self) -> list[Place]:
        """Tensors that T may act on: all, or those of the part that `mixes` names."""
        return [place for place in self.answers if self.runs.mixes is None or place in self.base.named]

    def changed_by(self, source: Place) -> set[Place]:
        """The tensors that change with one of them."""
        if source not in self._changed_by:
            changed = changed_at(self.base.tensors[source], self.answers[source].axis, self.position)
            run = self.run([*self.answers], {source: lambda _: changed})
            plain = self.base.tensors
            self._changed_by[source] = {
                place for place in self.answers if not torch.equal(run.tensors[place], plain[place])
            }
        return self._changed_by[source]

    def mixed(self) -> list[Place]:
        """Tensors into which the position is mixed at later ones, and at no earlier one."""
        # What is delayed answers at a single position, a later one.
        return [place for place, answer in self.answers.items() if answer.last > self.position <= answer.first]

    def cuts(self) -> list[Place]:
        """Tensors through which all mixing goes, and behind which there is none, in order."""
        return [place for place in self.mixed() if place == OUTPUT or (place.number >= 0 and self._is_cut(place))]

    def _is_cut(self, place: Place) -> bool:
        held = self.base.tensors[place]
        changed = changed_at(held, self.answers[place].axis, self.position)
        with suppress(OtherOperationsError):
            if self.reaches(self.run((OUTPUT,), {place: lambda _: held}, change=self.other_input)):
                return False
            if not (behind := self.reaches(self.run((OUTPUT,), {place: lambda _: changed}))):
                return True
            self.stages[place] = behind
        return False

    def reaches(self, run: ModuleRun) -> int:
        """How far from the position that was changed an output differs from that of the plain run."""
        difference, scale = self.matrix(run, OUTPUT) - self.matrix(self.base, OUTPUT), self.scale(OUTPUT)
        return reached(difference, self.position, self.precision.rounding * scale)

    def acting_around(self, mix: Mix, through: Place | None = None) -> int | None:
        """A position that acts on others beside T, or before or behind it where nothing was seen; None for none."""
        # through: What all mixing goes through, if that is not the target, but lies behind a gate of it.
        end = mix.target if through is None else through
        axes = {place: self.answers[place].axis for place in (mix.source, mix.target, end, OUTPUT)}
        held, plain = self.base.tensors[end], self.base.tensors
        nothing: dict[Place, Callable[[Tensor], Tensor]] = {mix.source: torch.zeros_like}
        zero = self.run((mix.target,), nothing).tensors

        def acts(changed: Tensor) -> bool:
            def other(tensor: Tensor) -> Tensor:
                return changed_input(tensor, self.runs.length, changed)

            def differs(run: ModuleRun, before: Mapping[Place, Tensor], place: Place) -> bool:
                difference = by_position(run.tensors[place] - before[place], axes[place])[~changed]
                return bool((difference.abs() > self.precision.rounding * self.scale(place)).any())

            try:
                target = held if mix.behind else changed_at(held, axes[end], changed)
                run = self.run((OUTPUT, mix.source), {end: lambda _: target}, change=other)
                if differs(run, plain, OUTPUT) or (not mix.before and differs(run, plain, mix.source)):
                    return True
                second = self.run((mix.target,), nothing, change=other)
                return differs(second, zero, mix.target)
            except OtherOperationsError:
                # Code that asks for its numbers was only seen to do the same with another one at one position.
                return False

        return next((narrowed(acts, half) for half in earlier_halves(self.runs.length) if acts(half)), None)

    def all_mixes(self, cuts: list[Place], sources: Iterable[Place]) -> list[Mix]:
        """The mixing from some tensors to the cuts behind them."""
        found: list[Mix] = []
        entered: list[Tensor] = []
        for source in sources if cuts else ():
            if not source < cuts[-1] or source not in self.answers or self.answers[source].first < self.position:
                continue
            matrix = self.matrix(self.base, source)
            if any(matrix.shape == before.shape and torch.equal(matrix, before) for before in entered):
                # The same numbers in another shape, or at another place.
                continue
            mixes = list[Mix]()
            with suppress(OtherOperationsError):
                mixes = self.mixes([cut for cut in cuts if source < cut], source)
            found += mixes
            if any(not mix.behind for mix in mixes) or source in self.partial:
                entered.append(matrix)
        return found

    def mixes(self, targets: list[Place], source: Place) -> list[Mix]:
        """The mixing from a source to tensors behind it that are linear in it and keep its channels apart."""
        held = self.base.tensors[source]
        axis = self.answers[source].axis
        if not bool(held.isfinite().all()):
            return []

        def change(by: Tensor, places: Collection[Place]) -> dict[Place, Tensor]:
            run = self.run(places, {source: lambda _: held + by})
            return {place: self.matrix(run, place) - self.matrix(self.base, place) for place in places}

        small = changed_at(held, axis, self.position) - held
        impulse = change(small, targets)
        reach = {place: self._reach(impulse[place]) for place in targets}
        targets = [place for place in targets if reach[place]]
        # Most sources that are not linear end here, after two runs.
        doubled = change(2 * small, targets) if targets else {}
        targets = [place for place in targets if self._near(doubled[place], 2 * impulse[place])]
        if not targets:
            return []
        # All positions change at once: of gates that multiply along the text, two that lie far apart seem to add up.
        one, other = noise(held, 1), noise(held, 2)
        first, second, both = (change(by, targets) for by in (one, other, 2 * one + other))
        targets = [place for place in targets if self._near(both[place], 2 * first[place] + second[place])]
        return self._with_channels(targets, source, reach) if targets else []

    @cached_property
    def elsewhere(self) -> list[Callable[[Tensor], Tensor]]:
        """What changes an argument at all positions, in two ways; at one where other operations would follow."""

        def once(tensor: Tensor) -> Tensor:
            return changed_input(tensor, self.runs.length, slice(None))

        def twice(tensor: Tensor) -> Tensor:
            return once(once(tensor))

        with suppress(OtherOperationsError):
            ways = [once, twice]
            for change in ways:
                self.run(None, change=change)
            return ways
        return [self.other_input]

    def deviation(self) -> str:
        """How far the output is from linear in what is named, in brackets; "" where that is not why it has no T."""
        for place in sorted(self.base.named & self.answers.keys()):
            held = self.base.tensors[place]
            one = noise(held, 1)
            runs = (
                self.run((OUTPUT,), {place: lambda _, other=other: other}) for other in (held + one, held + 2 * one)
            )
            first, twice = (self.matrix(run, OUTPUT) - self.matrix(self.base, OUTPUT) for run in runs)
            difference, size = (twice - 2 * first).abs().amax(1), float(twice.abs().max())
            if bool((difference > self.precision.linear * size).any()):
                where = int((difference > self.precision.linear * size).nonzero()[0])
                return f" (first not at position {where}, by {float(difference.max()) / size:.1e} of the answer)"
        return ""

    def _reach(self, response: Tensor) -> int:
        """How many later positions a change at one position reaches; 0 where it reaches an earlier one."""
        size = response.abs().amax(1)
        changed = (size > self.precision.rounding * float(size.max())).nonzero().flatten()
        return int(changed[-1]) - self.position if len(changed) and changed[0] >= self.position else 0

    def _with_channels(self, targets: list[Place], source: Place, reach: Mapping[Place, int]) -> list[Mix]:
        axis, sequences = self.answers[source].axis, self.runs.sequences
        nothing = torch.zeros_like(self.matrix(self.base, source))
        entering, numbers = nothing.shape[1], noise(nothing[:, :1], 3)

        def answers(matrix: Tensor, change: Callable[[Tensor], Tensor] | None = None) -> dict[Place, Tensor]:
            run = self.run(targets, {source: lambda now: like(matrix, now, axis)}, change)
            return {place: self.matrix(run, place) for place in targets}

        def answers_to(amplitudes: Tensor) -> dict[Place, Tensor]:
            matrix = numbers * amplitudes.to(nothing)
            return {place: response - zero[place] for place, response in answers(matrix).items()}

        zero = answers(nothing)
        beside = answers(nothing, self.other_input)
        # What else enters must not be mixed: a second stream of values.
        targets = [
            place
            for place in targets
            if not reached(beside[place] - zero[place], self.position, self.precision.rounding * self.scale(place))
        ]
        if not targets:
            self.partial.add(source)
            return []
        responses, precision = [answers_to(amplitudes) for amplitudes in codes(entering)], self.precision
        found: list[Mix] = []
        for place in targets:
            by_code = torch.stack([response[place] for response in responses])
            origin = read_channels(by_code, entering, sequences, precision)
            if origin is not None:
                channels = grouped(by_code[0].reshape(-1, len(origin)), origin, precision)
                places = source, axis, place, self.answers[place].axis
                outside = self.answers[source].last - self.position, self.stages.get(place, 0)
                found.append(Mix(*places, channels, reach[place], *outside, self.base.operations, precision))
        return found

    def scale(self, place: Place) -> float:
        """The largest number of a tensor in the plain run."""
        return float(self.base.tensors[place].abs().max())

    def _near(self, one: Tensor, other: Tensor) -> bool:
        return bool((one - other).abs().max() <= self.precision.linear * other.abs().max())
