"""Which of several linear mixings of a module T is, and how far other numbers reach into its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from statesize.adapters.search.linear.search import LinearSearch, Mix
from statesize.adapters.search.lone.other_inputs import Positions, changed_at, changed_input
from statesize.adapters.search.lone.runs import OUTPUT, Place, like, noise, reached


def preferred(search: LinearSearch, found: list[Mix]) -> Mix:
    """The mixing with the fewest channels, then with the least before it or in its weights, then with the fewest T."""
    fewest, every = min(mix.channels.target.numel() for mix in found), found
    found = [mix for mix in found if mix.channels.target.numel() == fewest]
    # What has one channel for all, such as a gate of one head, is linear in any target behind a projection as well.
    entering = {mix: int(mix.channels.source.flatten().bincount().count_nonzero()) for mix in found}
    targets = {mix.target for mix in found if entering[mix] == max(entering.values())}
    found = _without_gates(search, [mix for mix in found if mix.target in targets])
    distances = {mix: weighed(search, mix, every) for mix in found}
    least = min(max(mix.before, distance) for mix, distance in distances.items())

    def size(mix: Mix) -> tuple[bool, int, int]:
        # A gate of values that a short convolution has mixed is no better a source than these values are.
        return max(mix.before, distances[mix]) > least, mix.channels.units, distances[mix]

    found = _without_stages([mix for mix in distances if size(mix) == min(map(size, distances))], search)
    target = _settled(search, sorted({mix.target for mix in found}))
    found = sorted((mix for mix in found if mix.target == target), key=lambda mix: mix.source)
    found = _with_own(search, found, every)
    # The first source that all others make or are made of: where several are multiplied, the product of all.
    followers = {
        mix.source: _followers(search, mix.source, [other for other in found if other != mix]) for mix in found
    }
    for mix in found:
        if all(other in followers[mix.source] or mix in followers[other.source] for other in found if other != mix):
            return mix
    first, *others = found
    return [mix for mix in others if mix not in followers[first.source]][-1]


def _settled(search: LinearSearch, targets: list[Place]) -> Place:
    """The first target, before any gate; or what is made of it without regard to the input, as by a division."""
    plain, limit = search.base.tensors, search.precision.rounding * search.scale(targets[0])
    # The last stages of a scan by doubling may add no more than rounding.
    alike = [
        place
        for place in targets
        if plain[place].shape == plain[targets[0]].shape
        and bool(((plain[place] - plain[targets[0]]).abs() <= limit).all())
    ]
    targets = targets[targets.index(alike[-1]) :]
    held = plain[targets[0]]
    # A gate may be made of what enters the layer, also where all that T mixes comes from one tensor in it.
    searches = (search,) if search.runs.entry is None else (search, search.from_outside())
    runs = [one.run(targets, {targets[0]: lambda _: held}, change) for one in searches for change in one.elsewhere]
    return [place for place in targets if all(torch.equal(run.tensors[place], plain[place]) for run in runs)][-1]


def before_gate(search: LinearSearch, mix: Mix) -> Mix:
    """In place of a target the same before its gate, where positions are mixed into the gate, by far less than T."""
    held, end = search.base.tensors[mix.source], search.matrix(search.base, mix.target)
    places = [
        place
        for place in sorted(search.mixed())
        if mix.source < place < mix.target and search.matrix(search.base, place).shape == end.shape
    ]
    if not places:
        return mix
    numbers = torch.zeros_like(held), noise(held, 1), noise(held, 2)
    zero, *others = (search.run([*places, mix.target], {mix.source: lambda _, one=one: one}) for one in numbers)

    def answers(place: Place) -> list[Tensor]:
        return [search.matrix(run, place) - search.matrix(zero, place) for run in others]

    def is_gated(place: Place) -> bool:
        (one, two), (gated_one, gated_two) = answers(place), answers(mix.target)
        limit = search.precision.linear * float((gated_one * two).abs().max())
        # The same factor of both, whatever was mixed.
        return bool(((gated_one * two - gated_two * one).abs() <= limit).all()) and not bool(gated_one[one == 0].any())

    def reached_around(place: Place) -> int:
        values = search.base.tensors[place]
        return search.reaches(search.run((OUTPUT,), {place: lambda _: values}, search.other_input))

    around = {place: reach for place in places if is_gated(place) and (reach := reached_around(place))}
    if not around:
        return mix
    whole = _without_stages([replace(mix, target=place) for place in around], search)
    place = _settled(search, [one.target for one in whole])
    if 3 * (behind := around[place]) > 2 * mix.reach:
        # Such as the sum of the weights, by which they are divided, or sums of logarithms, which cancel in T.
        return mix
    # A gate makes each channel a T of its own; before it, other sources may have fewer.
    every = search.all_mixes([place], search.sources())
    every = [one for one in every if one.reach > max(one.before, behind, weighed(search, one, every))]
    found = [preferred(search, every)] if every else list[Mix]()
    for one in [*found, *search.mixes([place], mix.source)]:
        if search.acting_around(one, mix.target) is None:
            return replace(one, before=max(one.before, mix.before if one.source == mix.source else 0), behind=behind)
    return mix


def _without_stages(found: list[Mix], search: LinearSearch) -> list[Mix]:
    """Without targets that a later one reaches beyond, if by less than rounding: stages of a scan by doubling."""
    extents = dict[Mix, int]()
    for source in {mix.source: mix for mix in found}.values():
        mixes = [mix for mix in found if mix.source == source.source]
        first = changed_at(search.base.tensors[source.source], source.source_axis, 0)
        run = search.run([mix.target for mix in mixes], {source.source: lambda _, first=first: first})
        for mix in mixes:
            # Where nothing arrives, not a bit changes.
            changed = search.matrix(run, mix.target) != search.matrix(search.base, mix.target)
            extents[mix] = int(changed.any(1).nonzero()[-1:].sum())

    def is_stage(mix: Mix) -> bool:
        later = (one for one in found if one.source == mix.source and one.target > mix.target)
        return any(extents[one] > extents[mix] for one in later)

    # What one source shows of a target holds for the others, whose numbers may vanish before.
    stages = {mix.target for mix in found if is_stage(mix)}
    return [mix for mix in found if mix.target not in stages]


def _without_gates(search: LinearSearch, found: list[Mix]) -> list[Mix]:
    """Without a gate whose product with what makes it, too, is a source: what makes a gate is none itself."""
    sources = {mix.source for mix in found}
    makers = {place: search.matrix(search.base, place) for place in search.answers if place not in sources}

    def is_in(gate: Mix, product: Mix) -> bool:
        columns = _columns(product)
        values, whole = (
            search.matrix(search.base, gate.source)[:, _columns(gate)],
            search.matrix(search.base, product.source),
        )
        limit = search.precision.rounding * float(whole.abs().max())
        return any(
            bool(((whole[:, columns] - values * maker[:, columns]).abs() <= limit).all())
            for place, maker in makers.items()
            if place < product.source and maker.shape == whole.shape
        )

    return [
        mix
        for mix in found
        if not any(one.target == mix.target and one.source > mix.source and is_in(mix, one) for one in found)
    ]


def _columns(mix: Mix) -> Tensor:
    """The source's channel of each of the target's, in the order of these, in one sequence."""
    return mix.channels.source.flatten()[mix.channels.target.flatten().argsort()]


def _with_own(search: LinearSearch, found: list[Mix], every: list[Mix]) -> list[Mix]:
    """In place of what is only delayed, the last that adds it to each position's own value, by fixed weights."""
    target, last = found[0].target, max(mix.source for mix in found)
    answer, size = search.answers[target], found[0].channels.target.numel()
    if answer.first < answer.last:
        return found
    # The first of several sources of one target comes last, and counts.
    ordered = sorted(every, key=lambda mix: (mix.target, -mix.source.number))
    for mix in ordered:
        fits = target < mix.target and mix.source <= last and mix.channels.target.numel() == size
        if fits and not mix.behind and _adds_own(search, mix, answer.first):
            found = [mix]
    return found


def _adds_own(search: LinearSearch, mix: Mix, later: int) -> bool:
    """Whether a target answers to each source position there and at one later position, by fixed weights."""
    place, held = mix.target, search.base.tensors[mix.source]

    def answer(position: Positions, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        changed = changed_at(held, mix.source_axis, position)
        one = search.run((place,), {mix.source: lambda _: changed}, change)
        plain = search.base if change is None else search.run((place,), {mix.source: lambda _: held}, change)
        return search.matrix(one, place) - search.matrix(plain, place)

    limit = search.precision.rounding * search.scale(place)
    if [int(at) for at in (answer(search.position).abs().amax(1) > limit).nonzero()] != [search.position, later]:
        return False
    # A gate is another one where all else that enters is other, and a fixed weight is not.
    whole = answer(slice(None))
    return all(bool(((answer(slice(None), change) - whole).abs() <= limit).all()) for change in search.elsewhere)


def _followers(search: LinearSearch, source: Place, others: list[Mix]) -> list[Mix]:
    """Those whose sources change with one that lies before them."""
    return [mix for mix in others if mix.source in search.changed_by(source)] if others else []


def weighed(search: LinearSearch, mix: Mix, every: list[Mix]) -> int:
    """How far numbers of other positions reach into the weights of a source, beside those that T is made of."""
    # What is mixed farther than T of any earlier position reaches is no norm of T.
    end, held = search.runs.length - 1 - search.position, search.base.tensors[mix.source]
    if mix.reach < end:
        changed = changed_at(held, mix.source_axis, slice(0, search.position + 1))
        later = search.matrix(search.run((mix.target,), {mix.source: lambda _: changed}), mix.target)
        difference = (later - search.matrix(search.base, mix.target))[search.position :]
        is_short = reached(difference, 0, search.precision.rounding * search.scale(mix.target)) < end
        if is_short and _weighed_from(search, mix) >= end:
            return end
    # Two sources of one target weigh each other where neither changes with the other.
    earlier_ones = (other for other in every if other.target <= mix.target and other.source != mix.source)
    others = list({other.source: other for other in earlier_ones}.values())
    followers = _followers(search, mix.source, others)
    others = [other for other in others if other not in followers and not _followers(search, other.source, [mix])]
    # What these are mixed from may cancel in T, as sums of logarithms do.
    before = max((other.before for other in others), default=0)
    farthest = min(before, _weighed_from(search, mix)) if before else 0
    return max([farthest, *(_weighed_from(search, mix, other) for other in others if not other.before)])


def _weighed_from(search: LinearSearch, mix: Mix, other: Mix | None = None) -> int:
    """From how far back other numbers, in another source or all that enters, reach into T of later positions alone."""
    key = mix.source, mix.target, None if other is None else other.source
    if key in search.weighed:
        return search.weighed[key]
    numbers, earlier = noise(search.matrix(search.base, mix.source), 4), slice(0, search.position + 1)
    replacing = dict[Place, Callable[[Tensor], Tensor]]()
    if other is not None:
        values = changed_at(search.base.tensors[other.source], other.source_axis, earlier)
        replacing[other.source] = lambda _: values

    def change(tensor: Tensor) -> Tensor:
        return changed_input(tensor, search.runs.length, earlier)

    def differs(distance: int) -> bool:
        # Positions that lie farther than so many behind those that change.
        later = numbers.clone()
        later[: search.position + 1 + distance] = 0

        def entering(now: Tensor) -> Tensor:
            return like(later, now, mix.source_axis)

        one = search.matrix(search.run((mix.target,), {mix.source: entering}), mix.target)
        changed = search.run((mix.target,), {**replacing, mix.source: entering}, None if replacing else change)
        two = search.matrix(changed, mix.target)
        return bool(((one - two).abs() > search.precision.rounding * one.abs().max()).any())

    # Twice as far each time, and then between the last two.
    least, most, end = 0, 0, search.runs.length - 1 - search.position
    while most < end and differs(most):
        least, most = most + 1, min(2 * most + 1, end)
    while least < most:
        middle = (least + most) // 2
        least, most = (middle + 1, most) if differs(middle) else (least, middle)
    search.weighed[key] = most
    return most
