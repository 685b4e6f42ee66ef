"""T of a layer by impulses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import entering_tensor, position_axis
from statesize.adapters.models.own_cache import UNEVEN
from statesize.adapters.models.precision import relative_difference, stored_dtype
from statesize.adapters.observation import Observation, Units
from statesize.adapters.search.linear.kept import cuts_beyond
from statesize.adapters.search.linear.search import Mix, described_part
from statesize.adapters.search.lone.mixing import CAUSES
from statesize.adapters.search.lone.runs import DOUBLE, OUTPUT, SINGLE, LoneRuns, by_position, like, noise
from statesize.adapters.search.probabilities import Mixing
from statesize.adapters.watch import Memory, named_state_size
from statesize.codes import Code, Note, joined
from statesize.errors import ModelError
from statesize.io.text import counted
from statesize.operators import Dense

# Positions that get an impulse in one run.
_AT_ONCE = 32
# Random inputs before a cut, by which the rank of the map from past to future is found, and the singular values that
# are numbers of a state and rounding, as parts of the largest.
_SAMPLES = 256
_STATE, _ROUNDING = 1e-8, 1e-12
# Cuts at which the rank is asked for where T seems to keep more, and numbers of T up to which all cuts are looked at.
_CUTS, _LARGEST = 2, 2**26
# How far sums of weights may be from 1 by a number that keeps a division from 0.
_NORMALISED = 1e-3
# Positions below which two lengths tell nothing.
_SHORTEST = 8
_IN_SINGLE = Note(Code.ROUNDED, "Its code does not run in float64: its T is that of float32, to 1e-5.")


def observe(name: str, runs: LoneRuns, mix: Mix, memory: Memory | None = None) -> tuple[Observation, Tensor, Memory]:
    """What a module mixed and by which T, what it returned, and its memory, which need not be found twice."""
    runs = replace(runs, precision=mix.precision)
    count, places = runs.sequences, (mix.source, mix.target, OUTPUT)
    run = runs.run(places)
    returned = run.tensors[OUTPUT]
    if run.operations != mix.operations and count == 1:
        # Some modules do other operations for one text than for the several of the search.
        runs = runs.repeated(2)
        run = runs.run(places)
    entered = by_position(run.tensors[mix.source], mix.source_axis)
    values = _by_unit(entered, mix.channels.source, runs.sequences)[:count]
    mixed = _by_unit(by_position(run.tensors[mix.target], mix.target_axis), mix.channels.target, runs.sequences)[:count]
    impulses = Impulses(name, runs, mix, entered)
    offset = _by_unit(impulses.zero, mix.channels.target, runs.sequences)[:count]
    sequences, units, length, shared = mixed.shape
    mixing = Mixing([lambda: impulses.matrix()[:count]], (sequences, units, length, length))
    groups = mix.channels.groups()
    is_attention = isinstance(runs.module, nn.MultiheadAttention)
    said = named_state_size(name, runs.module)
    keeps_all = is_attention or said == math.inf
    if memory is None:
        # A class speaks of its recurrence, and T may hold more, such as a convolution behind that.
        memory = Memory(None)
        if isinstance(said, int):
            rank = impulses.rank(said, groups or units)
            if rank <= said:
                rank = max(rank, *(impulses.rank(said, groups or units, cut) for cut in impulses.cuts_beyond(said)), 0)
            fixed = partial(impulses.state, groups or units)
            memory = Memory.named(said, rank, is_short=rank >= length // 4, fixed=fixed)
        if memory.states is None and not keeps_all:
            memory = replace(memory, states=impulses.state(groups or units))
    states = memory.states
    is_sized = keeps_all or states is not None
    state_size = torch.arange(length)
    if states is not None:
        # A state that has more room than the text has tokens is no cache of these.
        state_size = state_size.clamp(max=states) if states < length - 1 else torch.full_like(state_size, states)
    # Attention stores keys beside the values.
    stored = (2 if is_attention else 1) * (groups or units) * shared * (length if states is None else states)
    notes = [*memory.notes] if said else []
    if not is_sized:
        why = joined(memory.notes) if said else _shown_sizes(length, in_double=mix.precision is DOUBLE)
        notes = [Note(Code.UNKNOWN_SIZE, why)]
    if states is not None and states != said:
        holds = f"It holds {counted(states, 'number')} per channel"
        notes.append(Note(Code.COUNTED, f"{holds}: at half of the text and at all of it, T keeps no more."))
    if states is not None and impulses.sum_to_one():
        normalised = "Its weights sum to 1: keys or a normaliser that it may keep for that are not counted."
        notes.append(Note(Code.COUNTED, normalised))
    if (part := described_part(mix.before, mix.behind)) is not None:
        notes.append(part)
    notes += [UNEVEN] * mix.channels.shares_unevenly() + [_IN_SINGLE] * (mix.precision is SINGLE)

    def operator(chosen: Units) -> Dense:
        matrix = mixing.of(name, values, mixed)
        impulses.check(matrix, values, mixed - offset)
        return Dense.of_causal(matrix[:, chosen], state_size)

    observation = Observation(
        name=name,
        kind="attention" if is_attention else str(getattr(runs.module, "kind", type(runs.module).__name__)),
        operator=operator,
        values=values,
        mixed=mixed,
        state_size=states,
        state_bytes=stored * (runs.weights or stored_dtype(runs.module)).itemsize if is_sized else None,
        passed_on=lambda applied, chosen: applied + offset[:, chosen].to(applied),
        notes=tuple(notes),
        groups=groups,
        order=mix.channels.order(),
        stored_channels=shared,
        map_bytes=sequences * units * length**2 * values.element_size(),
        stored=values,
        forget=mixing.forget,
        in_double=mix.precision is DOUBLE,
    )
    return observation, returned, memory


def _shown_sizes(length: int, *, in_double: bool) -> str:
    """Which sizes a text shows, and what says the others: a state must hold less than a quarter of the tokens."""
    shown = "only code that runs in float64 shows it by itself"
    if in_double:
        fixed = f"show the size of a fixed state only up to {length // 4 - 1} numbers"
        fixed = fixed if length >= _SHORTEST else "are too few to show the size of a fixed state"
        shown = f"{length} tokens {fixed}, and no text that of a state that fades"
    return f"set its `state_size` to at least the rank of T, or to math.inf if it keeps every token; {shown}."


def _by_unit(matrix: Tensor, channels: Tensor, sequences: int) -> Tensor:
    """(L, S × channels) as (S, unit, L, P)."""
    return matrix.reshape(len(matrix), sequences, -1)[:, :, channels].permute(1, 2, 0, 3)


@dataclass(eq=False)
class Impulses:
    """The runs that T is made of."""

    name: str
    runs: LoneRuns
    mix: Mix
    entered: Tensor  # what the source holds, (L, S × channels)

    def __post_init__(self) -> None:
        self.nothing = torch.zeros_like(self.entered)
        self.zero = self._response(self.runs, self.nothing)
        self.checked = False

    def _response(self, runs: LoneRuns, matrix: Tensor) -> Tensor:
        """The target, (L, channels), where the source is (L, channels)."""
        mix = self.mix
        run = runs.run((mix.target,), {mix.source: lambda now: like(matrix, now, mix.source_axis)})
        if run.operations != mix.operations:
            raise ModelError(f"Mixer {self.name} does other operations for impulses: its T cannot be found by them.")
        return by_position(run.tensors[mix.target], mix.target_axis)

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """T, (S, unit, L, L), some positions at once: in several copies of the text, and in channels that share T."""
        length, sequences = self.runs.length, self.runs.sequences
        source, target, shared = self.mix.channels.source, self.mix.channels.target, self.mix.channels.shared
        channels = self.nothing.shape[1] // sequences
        slot = torch.zeros(channels, dtype=torch.int64)
        slot[source] = torch.arange(shared).expand_as(source)
        if not torch.equal(slot[source], torch.arange(shared).expand_as(source)):
            shared, slot = 1, torch.zeros_like(slot)
        copies, runs = self._copied(-(-min(_AT_ONCE, length) // shared))
        zero = self.zero.reshape(length, 1, sequences, -1)
        columns: list[Tensor] = []
        for start in range(0, length, copies * shared):
            position = start + torch.arange(copies)[:, None] * shared + slot  # (copy, channel)
            copy, channel = (position < length).nonzero(as_tuple=True)
            entering = self.nothing.new_zeros(length, copies, sequences, channels)
            entering[position[copy, channel], copy, :, channel] = 1
            response = self._response(runs, entering.flatten(1)).reshape(length, copies, sequences, -1) - zero
            by_unit = response[..., target[:, :shared]]  # (L, copy, S, unit, P)
            columns.append(by_unit.permute(2, 3, 0, 1, 4).flatten(3))
        matrix = torch.cat(columns, -1)[..., :length]
        if bool(matrix.triu(1).abs().max() > self.mix.precision.rounding * matrix.abs().max()):
            text = f"Mixer {self.name} must be causal, but impulses reach earlier positions. {CAUSES}"
            raise ModelError(Note(Code.LOOKS_AHEAD, text))
        return matrix.tril()

    def sum_to_one(self) -> bool:
        """Whether equal values stay what they are, as those of attention do."""
        passed_on = self._response(self.runs, torch.ones_like(self.entered)) - self.zero
        sums = _by_unit(passed_on, self.mix.channels.target, self.runs.sequences)
        return bool(((sums - 1).abs() <= _NORMALISED).all())

    def state(self, stored: int) -> int | None:
        """Numbers that each of so many stored inputs keeps for a channel; None if they are not found."""
        # Random numbers take the place of a text that has too few different tokens to tell.
        found, runs, mix = self._shown_state(stored), self.runs, self.mix
        entering = entering_tensor((runs.args, dict(runs.kwargs)), runs.length)
        if found is None or entering is None or (axis := position_axis(entering, runs.length)) is None:
            return found
        texts = by_position(entering, axis).reshape(runs.length, runs.sequences, -1).unbind(1)
        if found < min(len(cast("Tensor", text.unique(dim=0))) for text in texts):
            return found
        other = runs.with_arguments(lambda leaf: noise(leaf, 6) if leaf.is_floating_point() else leaf)
        # A layer may take no such numbers: what it then raises can be anything.
        with suppress(Exception):
            entered = by_position(other.run((mix.source,)).tensors[mix.source], mix.source_axis)
            return Impulses(self.name, other, mix, entered)._shown_state(stored)
        return None

    @torch.no_grad()
    def _shown_state(self, stored: int) -> int | None:
        """The same as this text shows it: a rank that stops growing."""
        length = self.runs.length
        if self.mix.precision is not DOUBLE or length < _SHORTEST:
            return None
        shorter = self._rank(length // 4, length // 2, stored)
        if shorter is None or not 0 < shorter < length // 4:
            return None
        longer = [self._rank(eighths * length // 8, length, stored) for eighths in (3, 4, 5)]
        if set(longer) != {shorter}:
            return None
        return None if any(self.rank(shorter, stored, cut) > shorter for cut in self.cuts_beyond(shorter)) else shorter

    def cuts_beyond(self, states: int) -> list[int]:
        """Some cuts at which T seems to keep more numbers than so many."""
        mix, count = self.mix, self.mix.channels.units * self.runs.sequences * self.runs.length**2
        if mix.precision is not DOUBLE or count > _LARGEST:
            return []
        sizes = torch.full((self.runs.length,), states)
        return cuts_beyond(mix.channels.by_group(self.matrix(), 1), sizes, mix.channels.groups())[:_CUTS]

    @torch.no_grad()
    def rank(self, states: int, stored: int, cut: int | None = None) -> int:
        """Numbers that each of so many stored inputs keeps for a channel at a cut, to one more than so many."""
        # cut: None for the middle.
        length, rank = self.runs.length, 0
        cut = length // 2 if cut is None else cut
        for relative in self._spectra(cut, length, stored) if self.mix.precision is DOUBLE else ():
            rank = int((relative > _STATE).sum(-1).max())
            if rank > states:
                break
        return rank

    def _rank(self, cut: int, end: int, stored: int) -> int | None:
        """The largest rank of H at a cut, of rows before an end; None where no gap tells numbers from rounding."""
        rank = 0
        for relative in self._spectra(cut, end, stored):
            if bool(((relative <= _STATE) & (relative > _ROUNDING)).any()):
                return None
            rank = int((relative > _STATE).sum(-1).max())
        # As many as samples may be more.
        return rank if rank < _SAMPLES else None

    def _spectra(self, cut: int, end: int, stored: int) -> Iterator[Tensor]:
        """Singular values of H at a cut, of rows before an end, times more and more samples until they hold all."""
        channels = self.mix.channels
        copies, runs = self._copied(-(-min(_AT_ONCE, self.runs.length) // channels.shared))
        zero, answers = self.zero[cut:end].repeat(1, copies), list[Tensor]()
        for number in range(_SAMPLES):
            entering = self.nothing.repeat(1, copies)
            entering[:cut] = noise(entering[:cut], number)
            response = (self._response(runs, entering)[cut:end] - zero).reshape(
                end - cut, copies, self.runs.sequences, -1
            )
            # (S, unit, rows, samples)
            by_unit = response[..., channels.by_group(channels.target, 0)].permute(2, 3, 0, 1, 4).flatten(3)
            answers.append(by_unit.reshape(len(by_unit), stored, -1, by_unit.shape[-1]))
            samples = torch.cat(answers, -1)
            sigma = cast("Tensor", torch.linalg.svdvals(samples.cpu()))
            relative = sigma / sigma[..., :1].clamp_min(torch.finfo(sigma.dtype).tiny)
            yield relative
            if bool((relative[..., -1] <= _STATE).all()) or samples.shape[-1] > min(cut, _SAMPLES):
                return

    def _copied(self, copies: int) -> tuple[int, LoneRuns]:
        """Runs over several copies of the text, if the module takes them as it takes one."""
        expected = self.zero.repeat(1, copies)
        # A module may be written for the number of sequences that it got: what it then raises can be anything.
        with suppress(Exception):
            runs = self.runs.repeated(copies)
            zero = self._response(runs, self.nothing.repeat(1, copies))
            if zero.shape == expected.shape and relative_difference(zero, expected) <= self.mix.precision.rounding:
                return copies, runs
        return 1, self.runs

    def check(self, matrix: Tensor, values: Tensor, mixed: Tensor) -> None:
        """Compare T u in every row and unit with what the module passes on: of its own values and of random ones."""
        # The text's own may be the same at many positions, so that a wrong T fits them too.
        if self.checked:
            return
        entering, mix = noise(self.entered, 0), self.mix
        passed_on = self._response(self.runs, entering) - self.zero
        random, answers = (
            _by_unit(tensor, channels, self.runs.sequences)[: len(matrix)]
            for tensor, channels in ((entering, mix.channels.source), (passed_on, mix.channels.target))
        )
        for entered, left, what in ((values, mixed, "its own values"), (random, answers, "random values")):
            difference = (matrix @ entered - left).abs().amax(-1)  # (S, unit, L)
            scale = left.abs().amax((-2, -1)).unsqueeze(-1)
            wrong = (difference > mix.precision.rounding * scale).nonzero()
            if len(wrong):
                sequence, unit, position = (int(index) for index in wrong[0])
                size = float(difference[sequence, unit, position] / scale[sequence, unit, 0])
                raise ModelError(
                    f"Mixer {self.name} must be linear in its values, but its answers to impulses, put together, "
                    f"differ from what it makes of {what}, first in sequence {sequence}, unit {unit}, position "
                    f"{position}, by {size:.1e} of the largest value; at most {mix.precision.rounding:.0e} is rounding."
                )
        self.checked = True
