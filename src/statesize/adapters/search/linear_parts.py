"""Between which two tensors of a module positions are mixed linearly."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from statesize.adapters.observation import PART
from statesize.adapters.search.channels import Channels, codes, grouped, read_channels
from statesize.adapters.search.lone_run import (
    DOUBLE,
    OUTPUT,
    SINGLE,
    LoneRuns,
    ModuleRun,
    Place,
    Precision,
    by_position,
    like,
    noise,
    reached,
)
from statesize.adapters.search.mixing import HOW_ELSE, answer_of, differs_beyond, mixes_positions
from statesize.adapters.search.other_inputs import Positions, changed_at, changed_input, earlier_halves
from statesize.errors import ModelError
from statesize.io.progress import duration

# Tensors of more times the numbers that enter or leave the module are maps or states, which T does not map.
LARGEST = 4
LONG = 10.0
"""Seconds from which on a search is told before it begins."""
_LOGGER = logging.getLogger("statesize")
# Modules whose long search was told.
_TOLD: WeakSet[nn.Module] = WeakSet()
# What was found of a module, by the length of the text and by what stood fixed in it or was named.
_FOUND: WeakKeyDictionary[nn.Module, dict[tuple[int, int, str | None], Mix]] = WeakKeyDictionary()


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


def described_part(before: int, behind: int) -> str:
    """What a T is without that acts on what is mixed over some positions before or behind it; "" for none."""
    sides = (before, "before"), (behind, "behind")
    outside = [f"a mixing of {others + 1} positions {side} it" for others, side in sides if others]
    return f"{PART}: T is without {' and '.join(outside)}." if outside else ""


def find_mix(runs: LoneRuns, name: str) -> Mix | None:
    """The mixing of positions by a module's own operations, or None; what is mixed otherwise is refused."""
    # All mixing must go through one tensor, the target; the target must be linear in another one, the source, with all
    # else held, each of its channels in one of the source's, and nothing else that enters it may be mixed. A mixing
    # before or behind, or of what weighs the source, must reach less far than T. Several such pairs: one with nothing
    # behind, then the one with the fewest channels, then with the least before, with the fewest T, with the least that
    # is mixed in the weights, then the first target and source.
    if not mixes_positions(runs, name):
        return None
    earlier, key = _FOUND.setdefault(runs.module, {}), (runs.length, len(runs.fixed), runs.mixes)
    mix = _found_again(runs, name, earlier[key]) if key in earlier else None
    if mix is None:
        (mix,) = _whole(runs, name, lambda search, found: [search.preferred(found)])
    earlier[key] = mix
    return mix


def _whole(runs: LoneRuns, name: str, chosen: Callable[[_Search, list[Mix]], list[Mix]]) -> list[Mix]:
    """Those of the chosen mixes that leave out nothing that no note tells of, wherever that lies in the text."""
    position, tried = None, set[int]()
    while True:
        search, found = _found(runs, name, position)
        mixes = chosen(search, found)
        around = [search.acting_around(mix) for mix in mixes]
        if whole := [mix for mix, acting in zip(mixes, around, strict=True) if acting is None]:
            return whole
        # What is mixed at few positions only, as from one block to the next, shows where these are changed.
        position = next(acting for acting in around if acting is not None)
        if position in tried:
            raise NoOperatorError(
                f"Mixer {name} mixes positions by more than what is linear, channel by channel, in one of its tensors: "
                f"no T was found. {HOW_ELSE}"
            )
        tried.add(position)


def _found_again(runs: LoneRuns, name: str, earlier: Mix) -> Mix | None:
    """The mixing that was found before, at other weights or in another text, if the same tests find it here too."""
    runs, plain = runs.most_precise()
    if runs.precision is earlier.precision and plain.output is not None:
        runs, plain = _searched(runs, plain.output)
        # In code that has changed, anything may stand at these places.
        with suppress(Exception):
            search = _Search(runs, name, _acting_position(runs, plain), (earlier.source, earlier.target, OUTPUT))
            for mix in search.all_mixes(search.cuts(), (earlier.source,)):
                same = torch.equal(mix.channels.target, earlier.channels.target)
                same = same and torch.equal(mix.channels.source, earlier.channels.source)
                if same and replace(mix, channels=earlier.channels) == earlier and search.acting_around(mix) is None:
                    return mix
    return None


def find_mixes(runs: LoneRuns, name: str) -> list[Mix]:
    """All that `find_mix` chooses from; of a module that mixes no positions none."""
    return _whole(runs, name, lambda _, found: found) if mixes_positions(runs, name) else []


def find_last(runs: LoneRuns, plain: Tensor, name: str) -> list[Mix]:
    """The mixing from one tensor: from the last that has any, as values are often made last."""
    if not mixes_positions(runs, name):
        return []
    runs, plain = _searched(runs, plain)
    search = _Search(runs, name, _acting_position(runs, plain), None)
    cuts = search.cuts()
    found = (search.all_mixes(cuts, (source,)) for source in reversed(search.sources()))
    last = next(filter(None, found), list[Mix]())
    return [mix for mix in last if search.acting_around(mix) is None]


def _found(runs: LoneRuns, name: str, position: int | None = None) -> tuple[_Search, list[Mix]]:
    runs, run = runs.most_precise()
    plain = run.tensors[OUTPUT]
    try:
        return _found_mixes(runs, plain, name, position)
    except NoOperatorError:
        # What numpy or a kernel of one's own computes in float32 is not linear to more than that.
        if runs.precision is not DOUBLE or not runs.rounds_more(plain):
            raise
    runs = replace(runs, precision=SINGLE)
    return _found_mixes(runs, runs.run().tensors[OUTPUT], name, position)


def _found_mixes(runs: LoneRuns, plain: Tensor, name: str, position: int | None) -> tuple[_Search, list[Mix]]:
    """The mixing of positions by a module that mixes them, and returns a tensor."""
    # position: One that acts on others; None for any.
    runs, plain = _searched(runs, plain)
    position = _acting_position(runs, plain) if position is None else position
    started = time.perf_counter()
    search = _Search(runs, name, position, None)
    # Two runs were made, and each source takes about two.
    seconds = len(search.sources()) * (time.perf_counter() - started)
    if seconds > LONG and runs.module not in _TOLD:
        _TOLD.add(runs.module)
        # A method whose T the layer does not compute is there already.
        saved = "" if callable(getattr(runs.module, "operator", None)) else "; a method `operator(hidden)` saves that"
        message = "Mixer %s: its code is searched for a linear mixing, for up to %s%s"
        _LOGGER.warning(message, name, duration(seconds), saved)
    cuts, named = search.cuts(), runs.mixes is not None
    first, stages = search, search.stages
    found = search.all_mixes(sorted([*cuts, *stages]), search.sources())
    parts, found = [mix for mix in found if mix.behind], [mix for mix in found if not mix.behind]
    if not found and not named:
        # A tensor of which T is made as well is T's input only for those that read it later.
        # What a single operation reads was tried as what it is.
        readers = [place for places in search.base.readers for place in places if len(places) > 1]
        search = _Search(runs, name, position, (*cuts, *readers, OUTPUT))
        found = search.all_mixes(search.cuts(), readers)
    # What is mixed at first enters all that follows, gates too: the last such tensor stands for what enters.
    for entry in sorted(stages, reverse=True) if all(mix.before for mix in found) else ():
        behind = _Search(replace(runs, entry=entry), name, position, None)
        if later := behind.all_mixes(behind.cuts(), behind.sources()):
            before = first.answers[entry].last - position
            search, found = behind, [replace(mix, before=mix.before + before) for mix in later]
            if any(mix.reach > mix.before for mix in found):
                break
    if not named:
        found, parts = (
            [mix for mix in some if mix.reach > max(mix.before, mix.behind, of.weighed(mix, some))]
            for of, some in ((search, found), (first, parts))
        )
    search, found = (search, found) if found else (first, parts)
    if named and not found:
        raise ModelError(
            f"Mixer {name} must be linear, channel by channel, in the output of {runs.mixes} or a part of it, as "
            f"`mixes` says{search.deviation()}. Name another part, or give the class a method `operator(hidden)`."
        )
    if not found:
        raise NoOperatorError(
            f"Mixer {name} mixes positions, but what it passes on is linear, channel by channel, in none of its "
            f"tensors: no T was found. {HOW_ELSE}"
        )
    return search, found


def _searched(runs: LoneRuns, plain: Tensor) -> tuple[LoneRuns, Tensor]:
    """The same runs over two texts at least, if the module takes them: no dimension counts positions of all texts."""
    # plain: What they return.
    entering = [leaf.numel() for leaf in tree_leaves((runs.args, dict(runs.kwargs))) if isinstance(leaf, Tensor)]
    runs = replace(runs, largest=LARGEST * max(plain.numel(), *entering))
    if runs.sequences > 1 or runs.fixed:
        return runs, plain
    with suppress(Exception):
        several = runs.repeated(2)
        output = several.run((OUTPUT,)).tensors[OUTPUT]
        if output.numel() == 2 * plain.numel() and runs.length in output.shape:
            return replace(several, largest=2 * runs.largest), output
    return runs, plain


def _acting_position(runs: LoneRuns, plain: Tensor) -> int:
    """A position that acts on later ones in the output: one that is forgotten at once shows no mixing."""
    length = runs.length
    for position in (length // 3, length // 2, length // 5, 2 * length // 3, 0):
        other = runs.run((OUTPUT,), change=lambda tensor, at=position: changed_input(tensor, length, at))
        answer = answer_of(plain, other.tensors[OUTPUT], length, position, runs.precision.rounding)
        if answer is not None and answer.last > position:
            return position

    def acts(changed: Tensor) -> bool:
        other = runs.run((OUTPUT,), change=lambda tensor: changed_input(tensor, length, changed))
        return differs_beyond(plain, other.tensors[OUTPUT], changed, runs.precision.rounding)

    return next((narrowed(acts, half) for half in earlier_halves(length) if acts(half)), length // 3)


def narrowed(acts: Callable[[Tensor], bool], changed: Tensor) -> int:
    """One of the positions of a mask that acts on others."""
    places = changed.nonzero().flatten()
    while len(places) > 1:
        first = places[: len(places) // 2]
        one = torch.zeros_like(changed).index_fill(0, first, value=True)
        places = first if acts(one) else places[len(first) :]
    return int(places)


class NoOperatorError(ModelError):
    """A module that mixes positions, and has no T that was found."""


class _OtherOperations(NoOperatorError):
    """A run with other operations or sizes than the plain one, so that its tensors are not those of the same places."""


class _Search:
    """The runs that a search is made of."""

    def __init__(self, runs: LoneRuns, name: str, position: int, keep: Collection[Place] | None) -> None:
        self.runs, self.name, self.position, self.precision = runs, name, position, runs.precision
        self.base = runs.run(keep)
        again = self._run(keep, change=self.other_input)
        self.answers = {
            place: answer
            for place, tensor in self.base.tensors.items()
            if (answer := answer_of(tensor, again.tensors[place], runs.length, position, self.precision.rounding))
        }
        self.partial: set[Place] = set()  # sources beside which more is mixed
        self.stages: dict[Place, int] = {}  # mixed tensors through which all goes, and how far it is mixed once more

    def other_input(self, tensor: Tensor) -> Tensor:
        """An argument with other numbers at one position."""
        return changed_input(tensor, self.runs.length, self.position)

    def _run(
        self,
        keep: Collection[Place] | None,
        replacing: Mapping[Place, Callable[[Tensor], Tensor]] | None = None,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> ModuleRun:
        run = self.runs.run(keep, replacing, change)
        if run.operations != self.base.operations:
            raise _OtherOperations(
                f"Mixer {self.name} does other operations where its numbers are others, so that impulses cannot find "
                f"its T. {HOW_ELSE}"
            )
        base = self.base.tensors
        kept = base if keep is None else run.tensors.keys() & base.keys()
        if any(place not in run.tensors or run.tensors[place].shape != base[place].shape for place in kept):
            raise _OtherOperations(
                f"Mixer {self.name} has tensors of other sizes where its numbers are others, as if each of its experts "
                f"runs on the tokens that are routed to it, so that impulses cannot find its T. {HOW_ELSE}"
            )
        return run

    def matrix(self, run: ModuleRun, place: Place) -> Tensor:
        """A tensor of a run as (L, channels)."""
        return by_position(run.tensors[place], self.answers[place].axis)

    def sources(self) -> list[Place]:
        """Tensors that T may act on: all, or those of the part that `mixes` names."""
        return [place for place in self.answers if self.runs.mixes is None or place in self.base.named]

    def cuts(self) -> list[Place]:
        """Tensors through which all mixing goes, and behind which there is none, in order."""
        # What is delayed answers at a single position, a later one.
        mixed = [place for place, answer in self.answers.items() if answer.last > self.position <= answer.first]
        return [place for place in mixed if place == OUTPUT or (place.number >= 0 and self._is_cut(place))]

    def _is_cut(self, place: Place) -> bool:
        held = self.base.tensors[place]
        changed = changed_at(held, self.answers[place].axis, self.position)
        with suppress(_OtherOperations):
            if self._reaches(self._run((OUTPUT,), {place: lambda _: held}, change=self.other_input)):
                return False
            if not (behind := self._reaches(self._run((OUTPUT,), {place: lambda _: changed}))):
                return True
            self.stages[place] = behind
        return False

    def _reaches(self, run: ModuleRun) -> int:
        """How far from the position that was changed an output differs from that of the plain run."""
        difference, scale = self.matrix(run, OUTPUT) - self.matrix(self.base, OUTPUT), self._scale(OUTPUT)
        return reached(difference, self.position, self.precision.rounding * scale)

    def acting_around(self, mix: Mix) -> int | None:
        """A position that acts on others beside T, or before or behind it where nothing was seen; None for none."""
        axes = {place: self.answers[place].axis for place in (mix.source, mix.target, OUTPUT)}
        held, plain = self.base.tensors[mix.target], self.base.tensors
        nothing: dict[Place, Callable[[Tensor], Tensor]] = {mix.source: torch.zeros_like}
        zero = self._run((mix.target,), nothing).tensors

        def acts(changed: Tensor) -> bool:
            def other(tensor: Tensor) -> Tensor:
                return changed_input(tensor, self.runs.length, changed)

            def differs(run: ModuleRun, before: Mapping[Place, Tensor], place: Place) -> bool:
                difference = by_position(run.tensors[place] - before[place], axes[place])[~changed]
                return bool((difference.abs() > self.precision.rounding * self._scale(place)).any())

            try:
                target = held if mix.behind else changed_at(held, axes[mix.target], changed)
                run = self._run((OUTPUT, mix.source), {mix.target: lambda _: target}, change=other)
                if differs(run, plain, OUTPUT) or (not mix.before and differs(run, plain, mix.source)):
                    return True
                second = self._run((mix.target,), nothing, change=other)
                return differs(second, zero, mix.target)
            except _OtherOperations:
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
            with suppress(_OtherOperations):
                mixes = self.mixes([cut for cut in cuts if source < cut], source)
            found += mixes
            if any(not mix.behind for mix in mixes) or source in self.partial:
                entered.append(matrix)
        return found

    def preferred(self, found: list[Mix]) -> Mix:
        """The mixing with the fewest channels, then of tensors that are not mixed before, then with the fewest T."""
        least = min(mix.before for mix in found)

        def size(mix: Mix) -> tuple[int, bool, int]:
            return mix.channels.target.numel(), mix.before > least, mix.channels.units

        every, found = found, [mix for mix in found if size(mix) == min(map(size, found))]
        weighed = [self.weighed(mix, every) for mix in found]
        found = [mix for mix, by in zip(found, weighed, strict=True) if by == min(weighed)]
        # The first target, before any gate; or what is made of it without regard to the input, as by a division.
        targets = sorted({mix.target for mix in found})
        held = self.base.tensors[targets[0]]
        runs = [self._run(targets, {targets[0]: lambda _: held}, change) for change in self._elsewhere]
        settled = [
            place for place in targets if all(torch.equal(run.tensors[place], self.base.tensors[place]) for run in runs)
        ]
        found = sorted((mix for mix in found if mix.target == settled[-1]), key=lambda mix: mix.source)
        found = self._with_own(found, every)
        # The first source that all others make or are made of: where several are multiplied, the product of all.
        followers = {
            mix.source: self._followers(mix.source, [other for other in found if other != mix]) for mix in found
        }
        for mix in found:
            if all(other in followers[mix.source] or mix in followers[other.source] for other in found if other != mix):
                return self._with_entering(mix, [other for other in followers[mix.source] if other.source > mix.source])
        first, *others = found
        return [mix for mix in others if mix not in followers[first.source]][-1]

    def _with_entering(self, first: Mix, followers: list[Mix]) -> Mix:
        """In place of a gate its product with what enters, which is no source where it makes the gate too."""
        entering = [
            self.matrix(self.base, place) for place in self.answers if place.number < 0 or place == self.runs.entry
        ]
        values = [self.matrix(self.base, mix.source) for mix in (first, *followers)]
        for number, mix in enumerate(followers, 1):
            product = values[number]
            limit = self.precision.rounding * float(product.abs().max())
            for tensor in entering:
                weighed = (gate * tensor for gate in values[:number] if gate.shape == tensor.shape == product.shape)
                if any(bool(((product - one).abs() <= limit).all()) for one in weighed):
                    return mix
        return first

    @cached_property
    def _elsewhere(self) -> list[Callable[[Tensor], Tensor]]:
        """What changes an argument at all positions, in two ways; at one where other operations would follow."""

        def once(tensor: Tensor) -> Tensor:
            return changed_input(tensor, self.runs.length, slice(None))

        def twice(tensor: Tensor) -> Tensor:
            return once(once(tensor))

        with suppress(_OtherOperations):
            ways = [once, twice]
            for change in ways:
                self._run(None, change=change)
            return ways
        return [self.other_input]

    def _with_own(self, found: list[Mix], every: list[Mix]) -> list[Mix]:
        """In place of what is only delayed, the last that adds it to each position's own value, by fixed weights."""
        target, last = found[0].target, max(mix.source for mix in found)
        answer, size = self.answers[target], found[0].channels.target.numel()
        if answer.first < answer.last:
            return found
        # The first of several sources of one target comes last, and counts.
        ordered = sorted(every, key=lambda mix: (mix.target, -mix.source.number))
        for mix in ordered:
            fits = target < mix.target and mix.source <= last and mix.channels.target.numel() == size
            if fits and not mix.behind and self._adds_own(mix, answer.first):
                found = [mix]
        return found

    def _adds_own(self, mix: Mix, later: int) -> bool:
        """Whether a target answers to each source position there and at one later position, by fixed weights."""
        place, held = mix.target, self.base.tensors[mix.source]

        def answer(position: Positions, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
            changed = changed_at(held, mix.source_axis, position)
            one = self._run((place,), {mix.source: lambda _: changed}, change)
            plain = self.base if change is None else self._run((place,), {mix.source: lambda _: held}, change)
            return self.matrix(one, place) - self.matrix(plain, place)

        limit = self.precision.rounding * self._scale(place)
        if [int(at) for at in (answer(self.position).abs().amax(1) > limit).nonzero()] != [self.position, later]:
            return False
        # A gate is another one where all else that enters is other, and a fixed weight is not.
        whole = answer(slice(None))
        return all(bool(((answer(slice(None), change) - whole).abs() <= limit).all()) for change in self._elsewhere)

    def _followers(self, source: Place, others: list[Mix]) -> list[Mix]:
        """Those whose sources change with one that lies before them."""
        if not others:
            return []
        held = self.base.tensors[source]
        changed = changed_at(held, self.answers[source].axis, self.position)
        places = [mix.source for mix in others]
        run = self._run(places, {source: lambda _: changed})
        return [mix for mix in others if not torch.equal(run.tensors[mix.source], self.base.tensors[mix.source])]

    def weighed(self, mix: Mix, every: list[Mix]) -> int:
        """How far numbers of other positions reach into the weights of a source, beside those that T is made of."""
        earlier = slice(0, self.position + 1)

        def entering(tensor: Tensor) -> Tensor:
            return changed_input(tensor, self.runs.length, earlier)

        # What is mixed farther than T of any earlier position reaches is no norm of T.
        end, held = self.runs.length - 1 - self.position, self.base.tensors[mix.source]
        if mix.reach < end:
            changed = changed_at(held, mix.source_axis, earlier)
            later = self.matrix(self._run((mix.target,), {mix.source: lambda _: changed}), mix.target)
            difference = (later - self.matrix(self.base, mix.target))[self.position :]
            is_short = reached(difference, 0, self.precision.rounding * self._scale(mix.target)) < end
            if is_short and self._weighed_from(mix, {}, entering) >= end:
                return end
        # Two sources of one target weigh each other where neither changes with the other.
        others = [other for other in every if other.target == mix.target and other.source != mix.source]
        followers = self._followers(mix.source, others)
        others = [other for other in others if other not in followers and not self._followers(other.source, [mix])]
        # What these are mixed from may cancel in T, as sums of logarithms do.
        before = max((other.before for other in others), default=0)
        farthest = min(before, self._weighed_from(mix, {}, entering)) if before else 0
        for other in others:
            if not other.before:
                values = changed_at(self.base.tensors[other.source], other.source_axis, earlier)
                farthest = max(farthest, self._weighed_from(mix, {other.source: lambda _, values=values: values}, None))
        return farthest

    def _weighed_from(
        self,
        mix: Mix,
        replacing: Mapping[Place, Callable[[Tensor], Tensor]],
        change: Callable[[Tensor], Tensor] | None,
    ) -> int:
        """From how far back other numbers reach into what T makes of later positions alone."""
        numbers = noise(self.matrix(self.base, mix.source), 4)

        def differs(distance: int) -> bool:
            # Positions that lie farther than so many behind those that change.
            later = numbers.clone()
            later[: self.position + 1 + distance] = 0

            def entering(now: Tensor) -> Tensor:
                return like(later, now, mix.source_axis)

            one = self.matrix(self._run((mix.target,), {mix.source: entering}), mix.target)
            two = self.matrix(self._run((mix.target,), {**replacing, mix.source: entering}, change), mix.target)
            return bool(((one - two).abs() > self.precision.rounding * one.abs().max()).any())

        # Twice as far each time, and then between the last two.
        least, most, end = 0, 0, self.runs.length - 1 - self.position
        while most < end and differs(most):
            least, most = most + 1, min(2 * most + 1, end)
        while least < most:
            middle = (least + most) // 2
            least, most = (middle + 1, most) if differs(middle) else (least, middle)
        return most

    def mixes(self, targets: list[Place], source: Place) -> list[Mix]:
        """The mixing from a source to tensors behind it that are linear in it and keep its channels apart."""
        held = self.base.tensors[source]
        axis = self.answers[source].axis
        if not bool(held.isfinite().all()):
            return []

        def change(by: Tensor, places: Collection[Place]) -> dict[Place, Tensor]:
            run = self._run(places, {source: lambda _: held + by})
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

    def deviation(self) -> str:
        """How far the output is from linear in what is named, in brackets; "" where that is not why it has no T."""
        for place in sorted(self.base.named & self.answers.keys()):
            held = self.base.tensors[place]
            one = noise(held, 1)
            runs = (
                self._run((OUTPUT,), {place: lambda _, other=other: other}) for other in (held + one, held + 2 * one)
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
            run = self._run(targets, {source: lambda now: like(matrix, now, axis)}, change)
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
            if not reached(beside[place] - zero[place], self.position, self.precision.rounding * self._scale(place))
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

    def _scale(self, place: Place) -> float:
        return float(self.base.tensors[place].abs().max())

    def _near(self, one: Tensor, other: Tensor) -> bool:
        return bool((one - other).abs().max() <= self.precision.linear * other.abs().max())
