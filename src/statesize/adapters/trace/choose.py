"""Where T begins and ends in a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from statesize.adapters.trace.channels import Channels, channels
from statesize.adapters.trace.graph import Graph, Paths, Use, bits, entries
from statesize.adapters.trace.labels import Label, Labels, distance, own, placed, reached, width
from statesize.adapters.trace.relations import Moved
from statesize.adapters.trace.replay import Piece, Place
from statesize.adapters.trace.tape import Node
from statesize.adapters.trace.walk import Walk, far, others, walked

_LARGEST = 4
"""Tensors of more times the numbers that enter or leave the module are maps or states, on which T does not act."""
_LESS_FAR = 2 / 3
"""Positions that are mixed around T less far than this part of what T mixes are told, and do not belong to it."""
_MOST_ENDS = 64


@dataclass(frozen=True)
class Around:
    """How far positions are mixed around T, in positions; 0 for not at all."""

    before: int
    behind: int
    beside: int


class End(NamedTuple):
    """A tensor at which T may end, its dimension of positions, and how far these are mixed behind it."""

    tensor: int
    axis: int
    behind: int


class Choice(NamedTuple):
    """A linear map, its units, and what is mixed around it."""

    piece: Piece
    channels: Channels
    around: Around


@dataclass(eq=False)
class Search:
    """Where T may begin and end in a run.

    Attributes:
        labels: Of the run, in which what measured modules return is given.
        output: What the module returns.
        axis: Its dimension of positions.
        texts: S, the number of texts.
        given: What measured modules return.
        named: The tensors in which T may begin; None for all.
        rounding: Differences below this part of the largest value are rounding.
        entering: Numbers in the largest tensor that enters the module.
        other_past: The tensors of the same run with other numbers before a position; None where it takes another way.
        other_text: The same where the last text is another one.
    """

    labels: Labels
    output: int
    axis: int
    texts: int
    given: frozenset[int]
    named: Collection[int] | None
    rounding: float
    entering: int
    other_past: Callable[[int], list[Tensor] | None]
    other_text: Callable[[], list[Tensor] | None]
    _channels: dict[tuple[int, int], Channels | None] = field(default_factory=dict[tuple[int, int], Channels | None])
    _walks: dict[tuple[int, int], Walk] = field(default_factory=dict[tuple[int, int], Walk])
    _uses: dict[tuple[int, int], set[Use]] = field(default_factory=dict[tuple[int, int], set[Use]])

    @cached_property
    def _reach(self) -> dict[int, Label]:
        return reached(self.labels, self.output, self.axis)

    def _is_small(self, tensor: int) -> bool:
        """Whether T may act on a tensor, or end in it."""
        value = self.labels.tape.values[tensor]
        largest = _LARGEST * max(self.entering, self.labels.tape.values[self.output].numel())
        return tensor in self.labels.of and value.is_floating_point() and value.numel() <= largest

    def _axes(self, tensor: int) -> list[int]:
        """The dimensions with an entry for each position, of a tensor in which T may end."""
        value = self.labels.tape.values[tensor]
        if not self._is_small(tensor):
            return []
        return [dim for dim, size in enumerate(value.shape) if size == self.labels.length]

    @property
    def ends(self) -> list[End]:
        """Tensors at which T may end, in order."""
        mixed, moved = self._mixed_and_moved
        # Entries that were only moved to other positions are mixed where others are added.
        return mixed or moved

    @cached_property
    def _mixed_and_moved(self) -> tuple[list[End], list[End]]:
        """Ends at which entries of several positions came together, and those at which they were only moved."""
        mixed, moved = list[End](), list[End]()
        for tensor in sorted(self._reach):
            if tensor not in self.labels.tape.made or tensor not in self.labels.of or tensor in self.given:
                continue
            if not bool(self._reach[tensor].last.any()):
                continue
            ends = [End(tensor, axis, self.behind(tensor, axis)) for axis in self._axes(tensor)]
            end, label = min(ends, key=lambda end: end.behind, default=None), self.labels.of[tensor]
            if end is not None and width(label, self.labels.length):
                mixed.append(end)
            elif end is not None and distance(label, end.axis, self.labels.length):
                moved.append(end)
        return mixed, moved

    def behind(self, tensor: int, axis: int) -> int:
        """How far positions of a tensor are mixed behind it."""
        return distance(self._reach[tensor], axis, self.labels.length)

    @cached_property
    def starts(self) -> dict[int, Place]:
        """Tensors in which T may begin: each entry is of the last position that it reads."""
        found = dict[int, Place]()
        for tensor in sorted(self._reach.keys() & self.labels.of.keys()):
            if self.named is None or tensor in self.named:
                place = self._placed(tensor) if self._is_small(tensor) else None
                found |= {} if place is None else {tensor: Place(tensor, *place)}
        return found

    def _placed(self, tensor: int) -> tuple[int, int] | None:
        label, length = self.labels.of[tensor], self.labels.length
        if (place := placed(label, length)) is not None:
            return place
        # What is only delayed is of no later position than its own.
        for axis in self._axes(tensor) if tensor in {end.tensor for end in self._mixed_and_moved[1]} else ():
            if bool((label.last <= own(label.last.shape, axis, length).last).all()):
                return axis, 0
        return None

    @cached_property
    def graph(self) -> Graph:
        """The paths of the run."""
        clean = {end.tensor for end in self.ends if not end.behind}
        return Graph(self.labels, sorted({*self.starts, *clean}), self.given)

    def before(self, start: Place) -> int:
        """How far positions are mixed in a start."""
        label, length = self.labels.of[start.tensor], self.labels.length
        text = Label(*(part.narrow(start.axis, start.first, length) for part in label))
        return distance(text, start.axis, length)

    def piece(self, paths: Paths, start: int, end: End) -> Piece:
        """The map from a start to an end."""
        uses = paths.uses[self.graph.place[start]]
        return Piece(self.graph, self.starts[start], Place(end.tensor, end.axis), uses)

    def units(self, piece: Piece) -> Channels | None:
        """The units of a map; None where it mixes channels or texts."""
        key = piece.start.tensor, piece.end.tensor
        if key not in self._channels:
            self._channels[key] = channels(piece, self.texts, self.rounding, self.other_text())
        return self._channels[key]

    def beside(self, end: int) -> int:
        """How far positions are mixed into the output where an end is held."""
        without = self.labels.without(end, self.graph.behind(end))
        return distance(without.of.get(self.output), self.axis, self.labels.length) if end != self.output else 0

    def walk(self, piece: Piece) -> Walk:
        """Where a map mixes positions."""
        key = piece.start.tensor, piece.end.tensor
        if key not in self._walks:
            made = self.labels.tape.made.get(piece.start.tensor)
            before = (
                []
                if made is None or not isinstance(self.labels.relations.get(made), Moved)
                else [one for _, one in made.inputs]
            )
            # The same numbers at other places, where nothing else reads them, mix as they do there.
            same = (
                before[0] if len(before) == 1 and self._uses.get((before[0], piece.end.tensor)) == {(made, 0)} else None
            )
            self._uses[key] = piece.uses
            self._walks[key] = self._walks[same, key[1]] if (same, key[1]) in self._walks else walked(piece)  # type: ignore[index]
        return self._walks[key]

    def _enclosing(self) -> Iterator[End]:
        """Ends behind and beside which no positions are mixed, in order."""
        clean = [end for end in self.ends if not end.behind]
        below, dirt = dict[int, int](), dict[int, int]()
        place, every = {end.tensor: 1 << at for at, end in enumerate(clean)}, (1 << len(clean)) - 1
        for node in self.labels.tape.nodes:
            inputs = [one for _, one in node.inputs]
            beneath = 0
            for one in inputs:
                beneath |= below.get(one, 0)
            dirty = 0
            for one in inputs:
                mixes = every if one in self.labels.of and self.graph.far(one) else 0
                dirty |= dirt.get(one, mixes & ~below.get(one, 0))
            for out in node.outs:
                mine = place.get(out, 0)
                mixes = every if out in self.labels.of and self.graph.far(out) else 0
                below[out] = beneath | mine
                dirt[out] = (mixes & ~beneath | dirty & beneath) & ~mine
        for end in clean:
            if not dirt.get(self.output, 0) & place[end.tensor] and not self.beside(end.tensor):
                yield self._scaled(end)

    def _scaled(self, end: End) -> End:
        """An end behind what scales it whatever the text is, as by a count of positions or a read-out of one state."""
        now = end.tensor
        while len(users := [node for node in self.graph.behind(now) if any(one == now for _, one in node.inputs)]) == 1:
            (node,) = users
            others = [one for _, one in node.inputs if one != now]
            is_scale = node.name in ("mul", "div") and len(others) == 1 and others[0] not in self.labels.of
            if len(node.outs) != 1 or not (
                is_scale or (not others and isinstance(self.labels.relations.get(node), Moved))
            ):
                break
            (now,) = node.outs
            if is_scale and now in self._reach:
                end = next((End(now, axis, 0) for axis in self._axes(now) if not self.behind(now, axis)), end)
        return end

    def _pieces(self, paths: Paths, end: End) -> dict[int, Piece]:
        """The maps to an end, by the place of their start."""
        places = (place for place in bits(paths.linear) if self.graph.tensors[place] in self.starts)
        pieces = {
            place: self.piece(paths, start, end)
            for place in places
            if (start := self.graph.tensors[place]) != end.tensor
        }
        return {place: piece for place, piece in pieces.items() if not self.walk(piece).bends}

    def _whole(self, end: End) -> Choice | None:
        """The map to an end from the first start through which all passes that is mixed in it."""
        paths = self.graph.paths(end.tensor)
        pieces = self._pieces(paths, end)
        for verify in (False, True):
            if verify:
                pieces = {place: piece for place, piece in pieces.items() if self.units(piece)}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            walks = {place: self.walk(piece) for place, piece in pieces.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            every = set[Node]().union(*(walk.mixing for walk in walks.values()))
            whole = [place for place, walk in walks.items() if walk.mixing == every and not walk.beside]  # pyright: ignore[reportUnknownVariableType]
            roots = list[int]()
            for place in whole:  # pyright: ignore[reportUnknownVariableType]
                follows = any(paths.through[pieces[place].start.tensor] >> root & 1 for root in roots)
                if not follows and self.units(pieces[place]) and far(pieces[place]):  # pyright: ignore[reportUnknownArgumentType]
                    roots.append(place)  # pyright: ignore[reportUnknownArgumentType]
            if roots:
                return self._chosen(pieces[self._widest(paths, whole, roots)], end)  # pyright: ignore[reportUnknownArgumentType]
        return None

    def _widest(self, paths: Paths, whole: list[int], roots: list[int]) -> int:
        """Of factors of a product the one of most channels, then the one that was computed first."""

        def size(root: int) -> int:
            chain = [root]
            for place in whole:
                behind = [one for one in roots if paths.through[self.graph.tensors[place]] >> one & 1]
                chain += [place] if behind == [root] else []
            return max(self._channels_of(self.graph.tensors[place]) for place in chain)

        return max(roots, key=lambda root: (size(root), -root))

    def _chosen(self, piece: Piece, end: End) -> Choice | None:
        units = self.units(piece)
        before = self.before(piece.start)
        around = Around(before, end.behind, max(self.beside(end.tensor), self.walk(piece).beside))
        return None if units is None else Choice(piece, units, around)

    def choose(self) -> Choice | None:
        """T; None where nothing is linear in another tensor."""
        found: Choice | None = None
        for end in self._enclosing():
            # Of ends behind and beside which no positions are mixed, that of the fewest numbers.
            if found is None or self._size(end.tensor) < self._size(found.piece.end.tensor):
                found = self._whole(end) or found
        found = self._delayed(found) or found
        if found is not None:
            most = far(found.piece)
            found = self._inner(found, most) or found
            if found.around.before <= most * _LESS_FAR and found.around.beside <= most:
                return self._weighed(found, most)
        found = self._farthest() or found
        return None if found is None else self._weighed(found, far(found.piece))

    def _weighed(self, choice: Choice, most: int) -> Choice:
        """A map, with what is mixed into factors of its values as mixed before, if these do not cancel."""
        weighed = self.walk(choice.piece).weighed
        if weighed <= most * _LESS_FAR or self.forgets(choice, by_row=True):
            return choice
        before = max(choice.around.before, weighed)
        return choice._replace(around=Around(before, choice.around.behind, choice.around.beside))

    def forgets(self, choice: Choice, *, by_row: bool = False) -> bool:
        """Whether T of later positions, but for a factor of each row, is the same with another past."""
        cut = self.labels.length // 3
        other = self.other_past(cut)
        if other is None:
            return False
        channels = choice.channels.target[..., 0].flatten()
        one, two = (piece.columns(channels) for piece in (choice.piece, replace(choice.piece, values=other)))
        # What weights read of the tokens just before reaches a little farther. (L, L, channels): columns, rows.
        start = 2 * self.labels.length // 3
        one, two = (part[start:, start:].double() for part in (one, two))
        if not by_row:
            return bool((one - two).abs().max() <= 100 * self.rounding * one.abs().max())
        ratio = (one * two).sum(0) / two.square().sum(0).clamp_min(torch.finfo(torch.float64).tiny)
        return bool((one - ratio * two).abs().max() <= 100 * self.rounding * one.abs().max())

    def _channels_of(self, start: int) -> int:
        """The number of channels of a start, without those that were only expanded."""
        value = self.labels.tape.values[start]
        return entries(value) // value.shape[self.starts[start].axis]

    def _size(self, tensor: int) -> int:
        return self.labels.tape.values[tensor].numel()

    def _delayed(self, found: Choice | None) -> Choice | None:
        """The map to an earlier end at which entries were only moved to other positions, before a gate."""
        for end in self._mixed_and_moved[1]:
            if found is not None and end.tensor >= found.piece.end.tensor:
                break
            if end.behind or self.beside(end.tensor) or not (found is None or self._is_gated(end.tensor)):
                continue
            if (choice := self._whole(end)) is not None:
                return choice
        return None

    def _is_gated(self, tensor: int) -> bool:
        """Whether a tensor, with what is added to it, is multiplied by another one that depends on the text."""
        behind = {tensor}
        for node in self.graph.behind(tensor):
            others = [one for _, one in node.inputs if one not in behind and one in self.labels.of]
            if node.name in ("mul", "div") and others:
                return True
            behind.update(node.outs)
        return False

    def _reach_of(self, piece: Piece) -> int:
        """How far a map reaches: by labels where these are exact, else by its numbers."""
        if all(self.labels.relations[node].is_exact for node in piece.nodes if node in self.labels.relations):
            return far(piece)
        answers = piece.columns(torch.arange(piece.ended.shape[1])).abs().amax(-1)
        later, earlier = (answers > self.rounding * answers.max()).nonzero(as_tuple=True)
        return int((earlier - later).max()) if len(later) else 0

    def _weights(self, piece: Piece) -> set[int]:
        """What the factors on the way of a map follow from."""
        of, found = {out for node in piece.nodes for out in node.outs}, set[int]()
        for node in reversed(self.graph.tape.nodes):
            if any(out in found for out in node.outs):
                found.update(one for _, one in node.inputs)
            elif any(out in of for out in node.outs):
                on = [(node, at) in piece.uses or one in of for at, (_, one) in enumerate(node.inputs)]
                added = others(node, on)
                found.update(one for at, (_, one) in enumerate(node.inputs) if not on[at] and at not in added)
        return found

    def _inner(self, found: Choice, most: int) -> Choice | None:
        """The map to an earlier end, behind which gates are multiplied that mix positions by themselves."""
        paths, end = self.graph.paths(found.piece.end.tensor), End(found.piece.end.tensor, found.piece.end.axis, 0)
        for inner in self.ends:
            if inner.tensor >= end.tensor:
                break
            place = self.graph.place.get(inner.tensor)
            if (
                place is None
                or inner.behind
                or not paths.linear >> place & 1
                or self._size(inner.tensor) != self._size(end.tensor)
            ):
                continue
            walk = walked(Piece(self.graph, Place(*inner[:2]), Place(*end[:2]), paths.uses[place]))
            if walk.mixing or walk.beside or walk.divided or not self.beside(inner.tensor):
                continue
            choice = self._whole(self._scaled(inner))
            if choice is None or far(choice.piece) < most:
                continue
            # Sums of logarithms are mixed into factors before and behind, which cancel.
            if choice.around.beside <= most * _LESS_FAR or not self.forgets(found) or self.forgets(choice):
                return choice
        return None

    def _farthest(self) -> Choice | None:
        """The map that reaches farthest, and of equal ones that of most channels."""
        best = dict[int, tuple[tuple[int, ...], Piece, End]]()
        for end in map(self._scaled, self.ends[:_MOST_ENDS]):
            for place, piece in self._pieces(self.graph.paths(end.tensor), end).items():
                walk = self.walk(piece)
                # All that is mixed of the start, what mixes least behind, then the fewest numbers, as of states read.
                rank = len(walk.mixing) + walk.divided, -end.behind, -self._size(end.tensor)
                if (place not in best or rank > best[place][0]) and self.units(piece) is not None:
                    best[place] = rank, piece, end
        pieces = {place: piece for place, (_, piece, _) in best.items()}
        # What is mixed for the weights of one of them belongs to that one.
        weights = set[int]().union(*(self._weights(piece) for piece in pieces.values() if self.walk(piece).mixing))
        ranked = [
            (piece.end.tensor not in weights, self._reach_of(piece), self._channels_of(piece.start.tensor), -place)
            for place, piece in pieces.items()
        ]
        for _, reach, _, place in sorted(ranked, reverse=True):
            _, piece, end = best[-place]
            if reach > end.behind and (choice := self._chosen(piece, end)) is not None:
                return choice
        return None
