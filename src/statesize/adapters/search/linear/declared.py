"""Whether the T that a layer declares is what the layer computes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from statesize.adapters.check import Checked
from statesize.adapters.search.linear.channels import Channels
from statesize.adapters.search.linear.kept import cuts_beyond
from statesize.adapters.search.linear.parts import LARGEST, find_last, find_mixes
from statesize.adapters.search.linear.search import Mix, NoOperatorError, described_part
from statesize.adapters.search.lone.mixing import differs_beyond, mixes_positions
from statesize.adapters.search.lone.other_inputs import changed_at, changed_input, earlier_halves, narrowed
from statesize.adapters.search.lone.runs import (
    DOUBLE,
    OUTPUT,
    SINGLE,
    LoneRuns,
    ModuleRun,
    Place,
    Precision,
    by_position,
    noise,
    reached,
)
from statesize.codes import Note
from statesize.errors import ModelError
from statesize.operators import BlockDense, Dense, Operator

# Random combinations of the rows of T, by which pairs of tensors are recognised.
_COMBINATIONS = 3
# Their rounding, in that of one row.
_SLACK = 100
# Numbers of all T that is compared.
_LARGEST = 2**27
# Cuts at which the rank of T is compared with a state size where a random part of it shows more.
_CUTS = 8
# The tensors of a module, in texts of a length, between which T was right.
_RIGHT: WeakKeyDictionary[nn.Module, dict[int, _Pair]] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Fit:
    """How far T is from what one tensor of a layer makes of another one."""

    difference: float
    head: int
    position: int
    multiplicity: int
    part: Note | None = None


@dataclass(frozen=True)
class _Pair:
    """A tensor that may be T times another one, and their dimensions of positions."""

    source: Place
    source_axis: int
    target: Place
    target_axis: int


def most_compared(operator: Operator) -> int:
    """The longest text whose T of all heads is compared."""
    return math.isqrt(_LARGEST // math.prod(operator.batch_shape))


@torch.no_grad()
def check_declared(name: str, runs: LoneRuns, operator: Operator) -> Checked:
    """Compare T of all heads with the layer's own answers to random values; a T that is another is refused."""
    # T is right if one tensor of the layer, the target, is T times another one, the source, whatever stands in that,
    # and all mixing goes through the target. Such pairs are recognised by the text's own values; random values in every
    # channel and position of the source, so that every head, row and column is reached, then tell.
    if isinstance(operator, BlockDense):
        return Checked(reason="it takes several values of each token; `multiplicity` says how many channels share it")
    # The author's code may be written for one dtype or one place in the model: what it then raises can be anything.
    pair = _RIGHT.get(runs.module, {}).get(runs.length)
    try:
        runs, plain = runs.most_precise((OUTPUT,) if pair is None else (pair.source, pair.target, OUTPUT))
    except Exception as error:
        return Checked(reason=f"the layer does not run by itself ({str(error).strip().splitlines()[0]})")
    output = plain.output
    if output is None or not output.is_floating_point() or not bool(output.isfinite().all()):
        return Checked(reason="the layer returns no tensor of finite numbers")
    matrix = operator.dense().double().cpu()
    if not bool(matrix.isfinite().all()):
        return Checked(reason="its T is not finite")
    exact = runs.precision is DOUBLE and operator.dtype is torch.float64
    check = _Check(replace(runs, largest=LARGEST * output.numel()), matrix, DOUBLE)
    single = replace(check, precision=SINGLE)
    if not exact:
        check = single
    fit = None
    # In code that has changed, anything may stand where T mapped one tensor to another before.
    with suppress(Exception):
        fit = pair and replace(check, plain=plain).first_right((pair,), (pair.target,))
    fit = fit or check.right()
    if fit is None and not check.parts and exact and runs.rounds_more(output):
        # A part of the layer computes in less than float64.
        check = single
        fit = check.right()
    if fit is None and check.parts and mixes_positions(runs, name):
        raise ModelError(
            f"Mixer {name}: operator(hidden) must be T of all that the layer mixes, got T of a part that reaches no "
            "further than another one. Return T of the whole, or make each part a module of its own."
        )
    if fit is None:
        fits = list[_Fit]()
        with suppress(NoOperatorError):
            last = find_last(runs, output, name)
            fits = check.fits(last)
            if not check.differs(last, fits):
                fits = check.fits(find_mixes(runs, name))
        if not fits:
            return Checked(
                reason="no tensor through which all of its mixing goes was found to be linear in another one"
            )
        fit = min(fits, key=lambda fit: fit.difference)
    if not fit.difference <= check.precision.rounding:
        raise ModelError(
            f"Mixer {name}: operator(hidden) must be what the layer computes, got a T that differs from the layer's "
            f"own answers to random values by {fit.difference:.1e} of the largest value, first in head {fit.head} at "
            f"position {fit.position}; at most {check.precision.rounding:.0e} is rounding. Correct the method, or "
            "leave it out: T is then found by impulses."
        )
    if exact and isinstance(operator, Dense):
        _require_state_size(name, operator, matrix)
    return Checked(fit.difference, check.precision.rounding, fit.multiplicity, part=fit.part)


def _require_state_size(name: str, operator: Dense, matrix: Tensor) -> None:
    """Refuse a state size of a bare matrix T, (S, H, L, L), that is less than what T keeps somewhere."""
    sizes = cast("list[int]", operator.state_size().tolist())
    most = 0, 0, 0
    for cut in [operator.length // 2, *cuts_beyond(matrix, operator.state_size())[:_CUTS]]:
        # T keeps no more numbers than there are positions before.
        if sizes[cut] < cut:
            rank = int(cast("Tensor", torch.linalg.matrix_rank(matrix[..., cut:, :cut], rtol=1e-8)).amax())
            most = max(most, (rank - sizes[cut], rank, cut))
    beyond, rank, cut = most
    if beyond:
        raise ModelError(
            f"Mixer {name}: the `state_size` of its ss.Dense must be at least the {rank} numbers that T keeps at "
            f"position {cut}, got {sizes[cut]}. Correct it, or leave it out."
        )


@dataclass(frozen=True, eq=False)
class _Check:
    """The runs of a layer that T, (S, H, L, L), is compared with."""

    runs: LoneRuns
    matrix: Tensor
    precision: Precision
    plain: ModuleRun | None = None  # with the tensors of a pair alone
    last: dict[Any, tuple[Tensor, list[ModuleRun]]] = field(init=False, default_factory=dict[Any, Any])
    parts: list[_Pair] = field(init=False, default_factory=list[_Pair])  # behind which as much is mixed

    @cached_property
    def combined(self) -> Tensor:
        """Random combinations of the rows of T, (S, H, combinations, L)."""
        return self.weights @ self.matrix

    @cached_property
    def weights(self) -> Tensor:
        return noise(self.matrix.new_ones(_COMBINATIONS, self.matrix.shape[-1]), 4)

    @cached_property
    def base(self) -> ModuleRun:
        """The plain run, with all tensors, or some."""
        return self.plain or self.runs.run(None)

    @cached_property
    def read(self) -> dict[Place, Tensor]:
        """Tensors as operations take them: there T may act on one that T is made of as well."""
        places = [place for places in self.base.readers for place in places]
        return self.runs.run(places).tensors

    def right(self) -> _Fit | None:
        """The first pair of tensors that T maps to each other, through which all mixing goes."""
        seen: list[_Pair] = []
        for pairs in self.pairs():
            if (fit := self.first_right(pairs, tuple(pair.target for pair in pairs))) is not None:
                return fit
            seen += pairs
        targets = tuple({pair.target for pair in seen})
        return self.first_right((other for pair in seen for other in self.later(pair)), targets)

    def first_right(self, pairs: Iterable[_Pair], targets: tuple[Place, ...]) -> _Fit | None:
        """The first of some pairs that T maps to each other, through which all mixing goes."""
        for pair in pairs:
            fit = self.fit(pair, targets)
            if fit is not None and fit.difference <= self.precision.rounding:
                if (around := self.around(pair)) is not None:
                    _RIGHT.setdefault(self.runs.module, {})[self.runs.length] = pair
                    return replace(fit, part=described_part(*around))
        return None

    def later(self, pair: _Pair) -> Iterator[_Pair]:
        """The same pair, its source only for those that read it from some operation on."""
        source = self.channels(self.base.tensors[pair.source], pair.source_axis)
        for place, tensor in sorted(self.read.items()):
            axes = [axis for axis, size in enumerate(tensor.shape) if size == self.runs.length]
            for axis in axes if place < pair.target else ():
                channels = self.channels(tensor, axis)
                if source is not None and channels is not None and torch.equal(channels, source):
                    yield replace(pair, source=place, source_axis=axis)
                    break

    def pairs(self) -> Iterator[list[_Pair]]:
        """For each source, the narrowest first, the pairs of tensors that T maps to each other at the text's values."""
        tensors = [
            (place, axis, channels)
            for place, tensor in sorted(self.base.tensors.items())
            for axis, size in enumerate(tensor.shape)
            if size == self.runs.length and (channels := self.channels(tensor, axis)) is not None
        ]
        if not tensors:
            return
        combined = [self.weights @ channels for _, _, channels in tensors]
        # The largest number of each target, in the first combination, tells most that are none.
        largest = torch.stack([found[0, 0, found[0, 0].abs().argmax()] for found in combined])
        limit = torch.stack([self.limit(found) for found in combined])
        seen: list[Tensor] = []
        # A wide source, as queries, keys and values in one, holds values that are linear for themselves alone.
        for source, source_axis, channels in sorted(tensors, key=lambda tensor: tensor[2].shape[-1]):
            if any(channels.shape == before.shape and torch.equal(channels, before) for before in seen):
                continue
            seen.append(channels)
            expected = self.expected(channels)
            values = expected[0, 0]
            likely = ((values[_nearest(values, largest)] - largest).abs() <= limit).nonzero().flatten()
            yield [
                _Pair(source, source_axis, target, target_axis)
                for at in cast("list[int]", likely.tolist())
                for target, target_axis, _ in (tensors[at],)
                if source < target and self.heads(expected, combined[at]) is not None
            ]

    def channels(self, tensor: Tensor, axis: int) -> Tensor | None:
        """A tensor as (S, L, channels), or None where it does not hold all sequences."""
        matrix, sequences = by_position(tensor, axis).double().cpu(), self.runs.sequences
        if matrix.shape[1] % sequences or not bool(matrix.isfinite().all()):
            return None
        return matrix.reshape(len(matrix), sequences, -1).transpose(0, 1)

    def expected(self, channels: Tensor) -> Tensor:
        """What each head makes of each channel, in random combinations of rows: (S, combinations, H × channels)."""
        by_head = self.combined @ channels.unsqueeze(1)
        return by_head.transpose(1, 2).flatten(2)

    def heads(self, expected: Tensor, found: Tensor) -> Tensor | None:
        """For each channel of a target the head and channel that it is made of, as one number; None where none fits."""
        # Both are (S, combinations, …).
        chosen = _nearest(expected[0, 0], found[0, 0].contiguous())
        fits = ((expected[..., chosen] - found).abs() <= self.limit(found)).all()
        return chosen if bool(fits) and bool(found.abs().amax() > 0) else None

    def limit(self, found: Tensor) -> Tensor:
        """How far combinations of a tensor may be from what they should be."""
        return _SLACK * self.precision.rounding * found.abs().amax()

    def answers(self, source: Place, targets: tuple[Place, ...]) -> tuple[Tensor, list[ModuleRun]]:
        """Random values, and two runs with some tensors kept: the plain one, and with these added to a source."""
        if (source, targets) not in self.last:
            held = self.base.tensors[source] if source in self.base.tensors else self.read[source]
            values = noise(held, 5)
            # The next source's take their place.
            self.last.clear()
            plain = self.base if self.base.tensors.keys() >= {*targets} else self.runs.run(targets)
            run = self.runs.run(targets, {source: lambda now: now + values})
            self.last[source, targets] = values, [plain, run]
        return self.last[source, targets]

    def fit(self, pair: _Pair, targets: tuple[Place, ...], layout: Channels | None = None) -> _Fit | None:
        """How far T is from the answers of a target to random values in a source; None where no head fits a channel."""
        # targets: All that are asked of any source.
        # layout: Heads in order, and the channel that each channel reads, for a T that is wrong.
        values, runs = self.answers(pair.source, targets)
        before, answers = (self.channels(run.tensors[pair.target], pair.target_axis) for run in runs)
        entered = self.channels(values, pair.source_axis)
        if before is None or answers is None or entered is None:
            # Random values of a source may grow beyond all numbers, as a decay's do.
            return None
        answers = answers - before
        heads, leaving = self.matrix.shape[1], answers.shape[-1]
        chosen = self.heads(self.expected(entered), self.weights @ answers)
        head, origin = torch.empty(0), torch.empty(0)
        if chosen is not None:
            origin = chosen % entered.shape[-1]
            # Heads of equal T share what is made by it.
            leaders = self.leaders()
            head = leaders[chosen // entered.shape[-1]]
            if any(heads * int((head == one).sum()) != leaving * int((leaders == one).sum()) for one in leaders):
                chosen = None
        if chosen is None:
            if layout is None:
                return None
            order = layout.target.flatten()
            head, origin = torch.empty_like(order), torch.empty_like(order)
            head[order] = torch.arange(leaving) * heads // leaving
            origin[order] = layout.source.flatten()
        largest, wrong = 0.0, (0, 0)
        for one in reversed(cast("list[int]", head.unique().tolist())):
            mine = head == one
            wanted = answers[..., mine]
            difference = (self.matrix[:, one] @ entered[..., origin[mine]] - wanted).abs().amax(-1)  # (S, L)
            relative = (difference / wanted.abs().amax((-2, -1)).unsqueeze(-1)).nan_to_num(0.0).amax(0)
            largest = max(largest, float(relative.max()))
            beyond = relative > self.precision.rounding
            wrong = (one, int(beyond.int().argmax())) if bool(beyond.any()) else wrong
        return _Fit(largest, *wrong, leaving // heads)

    def fits(self, mixes: list[Mix]) -> list[_Fit]:
        """How far T is from each mixing that a search has found."""
        targets = tuple(mix.target for mix in mixes)
        pairs = ((_Pair(mix.source, mix.source_axis, mix.target, mix.target_axis), mix.channels) for mix in mixes)
        return [fit for pair, layout in pairs if (fit := self.fit(pair, targets, layout)) is not None]

    def differs(self, mixes: list[Mix], fits: list[_Fit]) -> bool:
        """Whether T is another one, as the mixing from one source shows: then no other source needs a comparison."""
        # Where the text's values are not 0, and no target has numbers of its own, `right` has compared all sources.
        places = tuple(mix.target for mix in mixes)
        if not mixes or len(fits) < len(mixes) or any(mix.before or mix.behind for mix in mixes):
            return False
        plain = self.answers(mixes[0].source, places)[1][0].tensors
        zero, rounding = self.runs.run(places, {mixes[0].source: torch.zeros_like}).tensors, self.precision.rounding
        own = any(float(zero[place].abs().max()) >= rounding * float(plain[place].abs().max()) for place in places)
        return not own and all(fit.difference > rounding for fit in fits)

    def leaders(self) -> Tensor:
        """For each head the first one of equal T."""
        rows = self.combined.transpose(0, 1).flatten(1)
        distance = torch.cdist(rows, rows, p=math.inf)
        size = rows.abs().amax(-1)
        return (distance <= _SLACK * self.precision.rounding * torch.maximum(size, size[:, None])).int().argmax(1)

    def around(self, pair: _Pair) -> tuple[int, int] | None:
        """How many positions the layer mixes before and behind a pair; None if beside it, or T is the lesser part."""
        around = self.around_at(pair, self.runs.length // 3)
        if around is None:
            return None
        plain, rounding = self.plain_of(pair), self.precision.rounding
        target = plain[pair.target]

        def acts(changed: Tensor) -> bool:
            """Whether some positions act on others by more than T."""

            def other(tensor: Tensor) -> Tensor:
                return changed_input(tensor, self.runs.length, changed)

            result = target if behind or pair.target == OUTPUT else changed_at(target, pair.target_axis, changed)
            run = self.runs.run((OUTPUT, pair.source), {pair.target: lambda _: result}, change=other).tensors
            if differs_beyond(plain[OUTPUT], run[OUTPUT], changed, rounding):
                return True
            return not before and differs_beyond(plain[pair.source], run[pair.source], changed, rounding)

        before, behind = around
        for half in earlier_halves(self.runs.length):
            if acts(half):
                other = self.around_at(pair, narrowed(acts, half))
                if other is None:
                    return None
                before, behind = max(before, other[0]), max(behind, other[1])
        return before, behind

    def plain_of(self, pair: _Pair) -> dict[Place, Tensor]:
        """The tensors of the plain run, also as operations take them where a pair's source is such a one."""
        return self.base.tensors | self.read if pair.source.element < 0 else self.base.tensors

    def around_at(self, pair: _Pair, position: int) -> tuple[int, int] | None:
        """The same as one position shows it."""
        length, rounding, plain = self.runs.length, self.precision.rounding, self.plain_of(pair)
        target = plain[pair.target]

        def further(run: ModuleRun, place: Place) -> int:
            difference, scale = run.tensors[place] - plain[place], float(plain[place].abs().max())
            axes = [axis for axis, size in enumerate(difference.shape) if size == length]
            return min(reached(by_position(difference, axis), position, rounding * scale) for axis in axes)

        def other(tensor: Tensor) -> Tensor:
            return changed_input(tensor, length, position)

        changed = target if pair.target == OUTPUT else changed_at(target, pair.target_axis, position)
        # What it is at one position, and what else enters there, must reach no other one.
        run = self.runs.run((OUTPUT, pair.source), {pair.target: lambda _: changed}, change=other)
        before, behind = further(run, pair.source), further(run, OUTPUT)
        held = behind and further(self.runs.run((OUTPUT,), {pair.target: lambda _: target}, change=other), OUTPUT)
        column = self.matrix[..., position].flatten(0, 1).T
        reach = reached(column, position, rounding * float(column.abs().max()))
        if not held and behind >= reach > 0:
            self.parts.append(pair)
        return None if held or behind >= max(reach, 1) or before > 0 == reach else (before, behind)


def _nearest(numbers: Tensor, wanted: Tensor) -> Tensor:
    """For each wanted number the index of the known one that is nearest to it."""
    ordered, order = numbers.sort()
    after = torch.searchsorted(ordered, wanted).clamp(max=len(numbers) - 1)
    before = (after - 1).clamp(min=0)
    return order[torch.where((ordered[after] - wanted).abs() < (ordered[before] - wanted).abs(), after, before)]
