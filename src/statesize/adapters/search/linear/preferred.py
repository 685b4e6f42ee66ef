"""Which of several linear mixings of a module T is, and how far other numbers reach into its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from statesize.adapters.search.linear.search import LinearSearch, Mix
from statesize.adapters.search.lone.other_inputs import Positions, changed_at, changed_input
from statesize.adapters.search.lone.runs import Place, like, noise, reached


def preferred(search: LinearSearch, found: list[Mix]) -> Mix:
    """The mixing with the fewest channels, then of tensors that are not mixed before, then with the fewest T."""
    least = min(mix.before for mix in found)

    def size(mix: Mix) -> tuple[int, bool, int]:
        return mix.channels.target.numel(), mix.before > least, mix.channels.units

    every, found = found, [mix for mix in found if size(mix) == min(map(size, found))]
    distances = [weighed(search, mix, every) for mix in found]
    found = [mix for mix, distance in zip(found, distances, strict=True) if distance == min(distances)]
    # The first target, before any gate; or what is made of it without regard to the input, as by a division.
    targets = sorted({mix.target for mix in found})
    held = search.base.tensors[targets[0]]
    runs = [search.run(targets, {targets[0]: lambda _: held}, change) for change in search.elsewhere]
    settled = [
        place for place in targets if all(torch.equal(run.tensors[place], search.base.tensors[place]) for run in runs)
    ]
    found = sorted((mix for mix in found if mix.target == settled[-1]), key=lambda mix: mix.source)
    found = _with_own(search, found, every)
    # The first source that all others make or are made of: where several are multiplied, the product of all.
    followers = {
        mix.source: _followers(search, mix.source, [other for other in found if other != mix]) for mix in found
    }
    for mix in found:
        if all(other in followers[mix.source] or mix in followers[other.source] for other in found if other != mix):
            return _with_entering(search, mix, [other for other in followers[mix.source] if other.source > mix.source])
    first, *others = found
    return [mix for mix in others if mix not in followers[first.source]][-1]


def _with_entering(search: LinearSearch, first: Mix, followers: list[Mix]) -> Mix:
    """In place of a gate its product with what enters, which is no source where it makes the gate too."""
    entering = [
        search.matrix(search.base, place) for place in search.answers if place.number < 0 or place == search.runs.entry
    ]
    values = [search.matrix(search.base, mix.source) for mix in (first, *followers)]
    for number, mix in enumerate(followers, 1):
        product = values[number]
        limit = search.precision.rounding * float(product.abs().max())
        for tensor in entering:
            products = (gate * tensor for gate in values[:number] if gate.shape == tensor.shape == product.shape)
            if any(bool(((product - one).abs() <= limit).all()) for one in products):
                return mix
    return first


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
    if not others:
        return []
    held = search.base.tensors[source]
    changed = changed_at(held, search.answers[source].axis, search.position)
    places = [mix.source for mix in others]
    run = search.run(places, {source: lambda _: changed})
    return [mix for mix in others if not torch.equal(run.tensors[mix.source], search.base.tensors[mix.source])]


def weighed(search: LinearSearch, mix: Mix, every: list[Mix]) -> int:
    """How far numbers of other positions reach into the weights of a source, beside those that T is made of."""
    earlier = slice(0, search.position + 1)

    def entering(tensor: Tensor) -> Tensor:
        return changed_input(tensor, search.runs.length, earlier)

    # What is mixed farther than T of any earlier position reaches is no norm of T.
    end, held = search.runs.length - 1 - search.position, search.base.tensors[mix.source]
    if mix.reach < end:
        changed = changed_at(held, mix.source_axis, earlier)
        later = search.matrix(search.run((mix.target,), {mix.source: lambda _: changed}), mix.target)
        difference = (later - search.matrix(search.base, mix.target))[search.position :]
        is_short = reached(difference, 0, search.precision.rounding * search.scale(mix.target)) < end
        if is_short and _weighed_from(search, mix, {}, entering) >= end:
            return end
    # Two sources of one target weigh each other where neither changes with the other.
    others = [other for other in every if other.target == mix.target and other.source != mix.source]
    followers = _followers(search, mix.source, others)
    others = [other for other in others if other not in followers and not _followers(search, other.source, [mix])]
    # What these are mixed from may cancel in T, as sums of logarithms do.
    before = max((other.before for other in others), default=0)
    farthest = min(before, _weighed_from(search, mix, {}, entering)) if before else 0
    for other in others:
        if not other.before:
            values = changed_at(search.base.tensors[other.source], other.source_axis, earlier)
            farthest = max(farthest, _weighed_from(search, mix, {other.source: lambda _, values=values: values}, None))
    return farthest


def _weighed_from(
    search: LinearSearch,
    mix: Mix,
    replacing: Mapping[Place, Callable[[Tensor], Tensor]],
    change: Callable[[Tensor], Tensor] | None,
) -> int:
    """From how far back other numbers reach into what T makes of later positions alone."""
    numbers = noise(search.matrix(search.base, mix.source), 4)

    def differs(distance: int) -> bool:
        # Positions that lie farther than so many behind those that change.
        later = numbers.clone()
        later[: search.position + 1 + distance] = 0

        def entering(now: Tensor) -> Tensor:
            return like(later, now, mix.source_axis)

        one = search.matrix(search.run((mix.target,), {mix.source: entering}), mix.target)
        two = search.matrix(search.run((mix.target,), {**replacing, mix.source: entering}, change), mix.target)
        return bool(((one - two).abs() > search.precision.rounding * one.abs().max()).any())

    # Twice as far each time, and then between the last two.
    least, most, end = 0, 0, search.runs.length - 1 - search.position
    while most < end and differs(most):
        least, most = most + 1, min(2 * most + 1, end)
    while least < most:
        middle = (least + most) // 2
        least, most = (middle + 1, most) if differs(middle) else (least, middle)
    return most
