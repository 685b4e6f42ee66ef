"""Between which two tensors of a module positions are mixed linearly."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from statesize.adapters.search.linear.preferred import before_gate, preferred, weighed
from statesize.adapters.search.linear.search import LinearSearch, Mix, NoOperatorError
from statesize.adapters.search.lone.mixing import HOW_ELSE, answer_of, differs_beyond, mixes_positions
from statesize.adapters.search.lone.other_inputs import changed_input, earlier_halves, narrowed
from statesize.adapters.search.lone.runs import DOUBLE, OUTPUT, SINGLE, LoneRuns
from statesize.errors import ModelError
from statesize.io.progress import duration

# Tensors of more times the numbers that enter or leave the module are maps or states, which T does not map.
LARGEST = 4
# In two positions weights look like values: one position acts on one other, as a scalar.
_FEWEST = 3
LONG = 10.0
"""Seconds from which on a search is told before it begins."""
_LOGGER = logging.getLogger("statesize")
# Modules whose long search was told.
_TOLD: WeakSet[nn.Module] = WeakSet()
# What was found of a module, and what of it lies before a gate: by the length of the text, and by what stood fixed in
# it or was named.
_FOUND: WeakKeyDictionary[nn.Module, dict[tuple[int, int, str | None], tuple[Mix, Mix]]] = WeakKeyDictionary()


def find_mix(runs: LoneRuns, name: str) -> Mix | None:
    """The mixing of positions by a module's own operations, or None; what is mixed otherwise is refused."""
    # All mixing must go through one tensor, the target; the target must be linear in another one, the source, with all
    # else held, each of its channels in one of the source's, and nothing else that enters it may be mixed. A mixing
    # before or behind, or of what weighs the source, must reach less far than T. Several such pairs: one with nothing
    # behind, then the one with the fewest channels, then with the least before it or mixed in its weights, with the
    # fewest T, then the first target and source. A gate behind the target through which less is mixed is left out.
    if not mixes_positions(runs, name):
        return None
    if runs.length < _FEWEST:
        raise NoOperatorError(f"Mixer {name} shows no T in a text of {runs.length} tokens. Give a longer one.")
    earlier, key = _FOUND.setdefault(runs.module, {}), (runs.length, len(runs.fixed), runs.mixes)
    if key in earlier and (again := _found_again(runs, name, *earlier[key])) is not None:
        earlier[key] = again
    else:
        search, (mix,) = _whole(runs, name, lambda search, found: [preferred(search, found)])
        earlier[key] = mix, before_gate(search, mix)
    return earlier[key][1]


def _whole(
    runs: LoneRuns, name: str, chosen: Callable[[LinearSearch, list[Mix]], list[Mix]]
) -> tuple[LinearSearch, list[Mix]]:
    """Those of the chosen mixes that leave out nothing that no note tells of, wherever that lies in the text."""
    position, tried = None, set[int]()
    while True:
        search, found = _found(runs, name, position)
        mixes = chosen(search, found)
        around = [search.acting_around(mix) for mix in mixes]
        if whole := [mix for mix, acting in zip(mixes, around, strict=True) if acting is None]:
            return search, whole
        # What is mixed at few positions only, as from one block to the next, shows where these are changed.
        position = next(acting for acting in around if acting is not None)
        if position in tried:
            raise NoOperatorError(
                f"Mixer {name} mixes positions by more than what is linear, channel by channel, in one of its tensors: "
                f"no T was found. {HOW_ELSE}"
            )
        tried.add(position)


def _found_again(runs: LoneRuns, name: str, earlier: Mix, part: Mix) -> tuple[Mix, Mix] | None:
    """The mixing that was found before, at other weights or in another text, if the same tests find it here too."""
    runs, plain = runs.most_precise()
    if runs.precision is earlier.precision and plain.output is not None:
        runs, plain = _searched(runs, plain.output)
        keep = (earlier.source, earlier.target, OUTPUT) if part is earlier else None
        # In code that has changed, anything may stand at these places.
        with suppress(Exception):
            search = LinearSearch(runs, name, _acting_position(runs, plain), keep)
            for mix in search.all_mixes(search.cuts(), (earlier.source,)):
                same = torch.equal(mix.channels.target, earlier.channels.target)
                same = same and torch.equal(mix.channels.source, earlier.channels.source)
                if same and replace(mix, channels=earlier.channels) == earlier and search.acting_around(mix) is None:
                    return mix, mix if part is earlier else before_gate(search, mix)
    return None


def find_mixes(runs: LoneRuns, name: str) -> list[Mix]:
    """All that `find_mix` chooses from; of a module that mixes no positions none."""
    return _whole(runs, name, lambda _, found: found)[1] if mixes_positions(runs, name) else []


def find_last(runs: LoneRuns, plain: Tensor, name: str) -> list[Mix]:
    """The mixing from one tensor: from the last that has any, as values are often made last."""
    if not mixes_positions(runs, name):
        return []
    runs, plain = _searched(runs, plain)
    search = LinearSearch(runs, name, _acting_position(runs, plain), None)
    cuts = search.cuts()
    found = (search.all_mixes(cuts, (source,)) for source in reversed(search.sources()))
    last = next(filter(None, found), list[Mix]())
    return [mix for mix in last if search.acting_around(mix) is None]


def _found(runs: LoneRuns, name: str, position: int | None = None) -> tuple[LinearSearch, list[Mix]]:
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


def _found_mixes(runs: LoneRuns, plain: Tensor, name: str, position: int | None) -> tuple[LinearSearch, list[Mix]]:
    """The mixing of positions by a module that mixes them, and returns a tensor."""
    # position: One that acts on others; None for any.
    runs, plain = _searched(runs, plain)
    position = _acting_position(runs, plain) if position is None else position
    started = time.perf_counter()
    search = LinearSearch(runs, name, position, None)
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
        search = LinearSearch(runs, name, position, (*first.answers, *readers, OUTPUT))
        found = search.all_mixes(search.cuts(), readers)
    # What is mixed at first enters all that follows, gates too: the last such tensor stands for what enters.
    for entry in sorted(stages, reverse=True) if all(mix.before for mix in found) else ():
        behind = LinearSearch(replace(runs, entry=entry), name, position, None)
        if later := behind.all_mixes(behind.cuts(), behind.sources()):
            before = first.answers[entry].last - position
            search, found = behind, [replace(mix, before=mix.before + before) for mix in later]
            if any(mix.reach > mix.before for mix in found):
                break
    if not named:
        found, parts = (
            [mix for mix in some if mix.reach > max(mix.before, mix.behind, weighed(of, mix, some))]
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
