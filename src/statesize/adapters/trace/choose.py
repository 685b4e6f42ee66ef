"""Where T begins and ends in a run."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import torch
from torch import Tensor

from statesize.adapters.module_call import ModuleCall
from statesize.adapters.other_inputs import Change, other_text
from statesize.adapters.trace.channels import Around, Channels, TracedMixing, channels
from statesize.adapters.trace.labels import Label, Labels, ahead, distance, placed
from statesize.adapters.trace.replay import Graph, Piece, Use, before, others
from statesize.adapters.trace.run import ROUNDING, Place, Run
from statesize.adapters.trace.tape import Node

_LARGEST = 4
"""Tensors of more times the numbers that enter or leave the module are maps or states, on which T does not act."""
_LESS_FAR = 2 / 3
"""Factors that are mixed less far than this part of what T mixes are gates, whatever T is with them."""
_LAYOUTS = frozenset("view _unsafe_view _reshape_alias permute transpose t unsqueeze squeeze clone".split())


@dataclass(eq=False)
class Search:
    """Where T may begin and end in a run."""

    labels: Labels  # of the run, in which what measured modules return is given
    run: Run  # the run
    call: ModuleCall  # what was run
    axis: int  # the dimension of positions of what it returns
    # The tensors of the same operations where what enters is changed; None where they do not fit these.
    replay: Callable[[Change], list[Tensor] | None]

    def __post_init__(self) -> None:
        """Find where the run ends."""
        self.output, self.given = Place(self.run.output, self.axis), frozenset(self.run.given)
        self.texts, self.rounding = self.call.texts, ROUNDING[self.run.dtype]
        self.largest = max(self.labels.values[tensor].numel() for tensor in (*self.run.entering, self.run.output))
        self._behind = dict[Place, int]()

    @cached_property
    def _named(self) -> set[int] | None:
        """What the part has returned whose output T acts on, at all its places; None where no part is named."""
        if self.call.named is None:
            return None
        found = set(self.run.returned[self.call.named])
        for node in self.labels.tape.nodes:
            if self.labels.moves(node) and all(tensor in found for _, tensor in node.inputs):
                found.update(node.outs)
        return found

    @cached_property
    def _other_past(self) -> list[Tensor] | None:
        return self.replay(other_text(slice(0, self.labels.length // 3)))

    @cached_property
    def _other_future(self) -> list[Tensor] | None:
        return self.replay(other_text(slice(self.labels.length // 2, None)))

    @cached_property
    def _other_text(self) -> list[Tensor] | None:
        """The tensors of a run in which the last of several texts is another one."""
        known = list[Tensor]()

        def change(leaf: Tensor, axis: int | None) -> Tensor:
            across = 0 if axis else 1
            if axis is None or leaf.ndim < 2 or leaf.shape[across] != self.texts:
                return leaf
            known.append(leaf)
            last = leaf.movedim(across, 0)[-1]
            last.copy_(0.7 - last if leaf.is_floating_point() else last.roll(1))
            return leaf

        again = None if self.texts < 2 or self.given else self.replay(change)
        return again if known else None

    def _axes(self, tensor: int, most: int) -> list[int]:
        """The dimensions of no more entries that may hold positions, of a tensor on which T may act, or may end in."""
        value = self.labels.values[tensor]
        if not value.is_floating_point() or not 0 < value.numel() <= _LARGEST * self.largest:
            return []
        return [dim for dim, size in enumerate(value.shape) if self.labels.length <= size <= most]

    @cached_property
    def _candidates(self) -> list[int]:
        """Tensors that lie between what enters and what leaves."""
        output, of = self.output.tensor, self.labels.of
        taken = {tensor for node in before(self.labels.tape, [output], self.given) for _, tensor in node.inputs}
        return sorted(tensor for tensor in {output, *taken} if tensor in of)

    @cached_property
    def ends(self) -> dict[int, int]:
        """Tensors in which T may end: of the same numbers in several layouts the last one, with texts beside heads."""
        every = self._every_end
        return {tensor: axis for tensor, axis in every.items() if self._next_layout(tensor) not in every}

    @cached_property
    def _every_end(self) -> dict[int, int]:
        """Tensors in which T could end, with their dimension of positions: the text's last position is in them."""
        found, length = dict[int, int](), self.labels.length
        for tensor in self._candidates:
            label, position = self.labels.of[tensor], self.labels.position(tensor)
            # A state of a loop is that of one position before the last.
            if tensor in self.given or tensor not in self.labels.tape.made or (position or length) < length:
                continue
            axes = [axis for axis in self._axes(tensor, length) if bool(label.last.select(axis, -1).any())]
            axes = [axis for axis in axes if self._is_causal(tensor, axis)]
            if axes:
                by_axis = [self.behind(Place(tensor, axis)) for axis in axes] if len(axes) > 1 else [0]
                found[tensor] = axes[by_axis.index(min(by_axis))]
        return found

    def _is_causal(self, tensor: int, axis: int) -> bool:
        """Whether no entry depends on a later position, by labels, or by other futures as where sums cancel."""
        label, length, other = self.labels.of[tensor], self.labels.length, self._other_future
        known = bool(((label.last != length) & (label.last != 0)).any())
        if not known or bool((ahead(label, axis, length) <= 0).all()):
            return True
        if other is None:
            return False
        both = (its[tensor].movedim(axis, 0)[: length // 2] for its in (self.labels.values, other))
        return not bool(self._differ(*both).any())

    def _differ(self, given: Tensor, other: Tensor) -> Tensor:
        """The positions, the first dimension, at which two tensors differ by more than rounding, (P,) bool."""
        given, other = (part.double().reshape(len(part), -1) for part in (given, other))
        return ~((given - other).abs().amax(1) <= 100 * self.rounding * given.abs().max())

    def behind(self, end: Place) -> int:
        """How far positions of a tensor are mixed behind it; L where nothing follows from it."""
        if end.tensor == self.output.tensor:
            return 0
        if end not in self._behind:
            users = self._users[end.tensor]
            uses = frozenset(
                (node, at) for node in users for at, pair in enumerate(node.inputs) if pair[1] == end.tensor
            )
            self._behind[end] = Piece(self.graph, end, self.output, uses).reach
        return self._behind[end]

    @cached_property
    def starts(self) -> dict[int, Place]:
        """Tensors in which T may begin: each entry is of the last position that it reads."""
        named = self._named
        inside = [tensor for tensor in self._candidates if named is None or tensor in named]
        found = {tensor: place for tensor in inside if (place := self._placed(tensor)) is not None}
        # Of the same numbers in several layouts the first one, and the last one, behind which ways part.
        later = {self._next_layout(tensor) for tensor in found}
        kept = (tensor for tensor in found if tensor not in later or self._next_layout(tensor) not in found)
        return {tensor: found[tensor] for tensor in kept}

    def _laid_out(self, node: Node) -> bool:
        """Whether an operation returns the numbers that it takes in another layout."""
        return node.name in _LAYOUTS and self._size(node.inputs[0][1]) == self._size(node.outs[0])

    def _next_layout(self, tensor: int) -> int | None:
        users = self._users[tensor]
        return users[0].outs[0] if len(users) == 1 and self._laid_out(users[0]) else None

    @cached_property
    def _users(self) -> dict[int, list[Node]]:
        """The operations that take a tensor."""
        found = defaultdict[int, list[Node]](list)
        for node in self.labels.tape.nodes:
            for _, tensor in node.inputs:
                found[tensor].append(node)
        return found

    def _computed(self, start: int) -> int:
        """The tensor that has the numbers of a start, in another layout, and was computed first."""
        made = self.labels.tape.made
        while start in made and start not in self.given and self._laid_out(made[start]):
            start = made[start].inputs[0][1]
        return start

    def _placed(self, tensor: int) -> Place | None:
        label, length, made = self.labels.of[tensor], self.labels.length, self.labels.tape.made.get(tensor)
        place = placed(label, length) if self._axes(tensor, sys.maxsize) else None
        if place is not None:
            return Place(tensor, *place)
        if made is not None and self.labels.moves(made):
            # A delayed tensor depends on no later position than its own.
            axes = [axis for axis in self._axes(tensor, length) if bool((ahead(label, axis, length) <= 0).all())]
            return Place(tensor, axes[0]) if axes else None
        if bool(((label.last != length) & (label.last != 0)).any()) or (other := self._other_future) is None:
            return None
        # Where labels say no more than that all depends on all, as behind spectra, another future shows the positions.
        for axis in self._axes(tensor, sys.maxsize):
            changed = self._differ(*(its[tensor].movedim(axis, 0) for its in (self.labels.values, other)))
            first = int(changed.int().argmax()) - length // 2
            if 0 <= first <= len(changed) - length:
                return Place(tensor, axis, first)
        return None

    @cached_property
    def graph(self) -> Graph:
        """The paths of the run."""
        return Graph(self.labels, self.starts, self.given)

    def around(self, piece: Piece) -> Around:
        """How far positions are mixed in the start of a map, behind its end, and into the output where that is held."""
        label, length, (_, axis, first) = self.labels.of[piece.start.tensor], self.labels.length, piece.start
        before = distance(Label(*(part.narrow(axis, first, length) for part in label)), axis, length)
        held, beside = self.labels.without([piece.end.tensor]), piece.step.beside
        beside = max(beside, distance(held.of.get(self.output.tensor), self.output.axis, length))
        return Around(before, self.behind(piece.end), beside)

    def _to(self, start: int) -> Iterator[Piece]:
        """The linear maps from a start, to every end, that mix or move positions."""
        for end, axis in self.ends.items():
            for uses in self.graph.uses(start, end):
                step = self.graph.walk(start, uses).steps.get(end)
                if step is None or step.bends:
                    continue
                if step.mixing or distance(step.label, axis, self.labels.length):
                    yield self._piece(start, end, uses)

    def pieces(self) -> Iterator[Piece]:
        """The linear maps by which positions are mixed, to every end."""
        return (piece for start in self.starts for piece in self._to(start) if piece.step.mixing)

    def _piece(self, start: int, end: int, uses: frozenset[Use]) -> Piece:
        return Piece(self.graph, self.starts[start], Place(end, self._every_end[end]), uses)

    def _channels(self, piece: Piece) -> Channels | None:
        return channels(piece, self.texts, self.rounding, self._other_text)

    def _best(self, start: int) -> Piece | None:
        """The map from a start by which most is mixed, to the first end behind which least is, of fewest numbers."""

        def rank(piece: Piece) -> tuple[int, ...]:
            return -piece.step.mixing.bit_count(), *self._end_rank(piece.end.tensor), piece.end.tensor

        failed, made, order = list[tuple[int, int]](), self.labels.tape.made, self.graph.order
        to = [piece for piece in self._to(start) if self.behind(piece.end) < self.labels.length - 1]
        for piece in sorted(to, key=rank):
            at, mixing = order[made[piece.end.tensor]], piece.step.mixing
            # What follows from mixed channels has them too.
            if any(other < at and mixing & its == its for other, its in failed):
                continue
            if self._channels(piece) is None:
                failed.append((at, mixing))
            elif piece.reach > self.behind(piece.end):
                return piece
        return None

    def _end_rank(self, end: int) -> tuple[int, int]:
        """By which ends of what is mixed are told apart: the least is that of T."""
        return self.behind(Place(end, self._every_end[end])), self._size(end)

    def _width(self, piece: Piece) -> int:
        """Channels of what a map acts on; those that were only expanded are none."""
        value = self.labels.values[piece.start.tensor]
        own = torch.Size(size for size, stride in zip(value.shape, value.stride(), strict=True) if stride)
        return own.numel() // value.shape[piece.start.axis]

    def _size(self, tensor: int) -> int:
        return self.labels.tape.values[tensor].numel()

    def choose(self) -> TracedMixing | None:
        """T; None where nothing is linear in another tensor, or more is mixed before it or behind."""
        best = list[Piece]()
        for start in self.starts:
            if not any(self._follows(start, piece) for piece in best) and (found := self._best(start)) is not None:
                best.append(found)

        def ends_late(piece: Piece) -> bool:
            """Whether there is a better end of what is mixed, as of states that are read."""
            mixing, rank, width = piece.step.mixing, self._end_rank(piece.end.tensor), self._width(piece)
            # A factor of fewer channels is none, but for what is made of it.
            rivals = (other for other in best if piece.start.tensor in other.steps or self._width(other) >= width)
            rivals = (other for other in rivals if other.step.mixing & mixing == mixing)
            return mixing > 0 and any(self._end_rank(other.end.tensor) < rank for other in rivals)

        kept = [piece for piece in best if not ends_late(piece)]
        best = [self._with_factors(piece) for piece in kept]
        # What is mixed for the weights of one of them belongs to that one.
        mixed = [piece for piece in best if piece.step.mixing]
        weights = set[int]().union(*(self._weights(piece, self._factors(piece, best)) for piece in mixed))

        def rank(piece: Piece) -> tuple[int, ...]:
            mixing = piece.step.mixing
            every = reduce(int.__or__, (other.step.mixing for other in best if other.end == piece.end))
            is_whole = mixing == every and not piece.step.beside
            # What another map mixes behind this one's end is no part of this one.
            until = 2 << self.graph.order[self.labels.tape.made[piece.end.tensor]]
            is_held = any(mixing != its == mixing | its for its in (other.step.mixing % until for other in best))
            order = not self._normalises(piece, best), not is_held, self._width(piece)
            return piece.end.tensor not in weights, piece.reach, is_whole, *order, -self._computed(piece.start.tensor)

        chosen = max(best, key=rank, default=None)
        units = None if chosen is None else self._channels(chosen)
        if chosen is None or units is None:
            return None
        factors = self._factors(chosen, best)
        around = self.around(chosen)
        around = around._replace(before=max(around.before, *(self.graph.far(factor) or 0 for factor in factors), 0))
        if around.before > chosen.reach or around.behind >= chosen.reach:
            return None
        return TracedMixing(chosen, units, around, factors, self.run.dtype)

    def _follows(self, start: int, piece: Piece) -> bool:
        """Whether a start lies on the way of a map that holds all that is mixed from there on."""
        if start not in piece.steps:
            return False
        if self._computed(start) == self._computed(piece.start.tensor):
            return True
        mixing, beside = piece.step.mixing, piece.step.beside
        steps = [other.step for other in self._to(start)]
        return all(step.mixing & ~mixing == 0 and step.beside >= beside for step in steps)

    def _factors(self, piece: Piece, best: list[Piece]) -> set[int]:
        """The other factors of products with the values in which T could begin as well."""
        others = [other for other in best if other.end == piece.end and other is not piece]
        starts, found = {tensor for other in others for tensor in (other.start.tensor, *other.steps)}, set[int]()
        for node in piece.nodes:
            ids = [tensor for _, tensor in node.inputs]
            mine = [tensor for tensor in ids if tensor == piece.start.tensor or tensor in piece.steps]
            if node.name == "mul" and not any(piece.steps[tensor].mixing for tensor in mine if tensor in piece.steps):
                found.update(starts.intersection(ids) - {*mine})
        return {factor for factor in found if not self._cancels(factor, piece)}

    def _cancels(self, factor: int, piece: Piece) -> bool:
        """Test whether the mixing in a factor cancels with a factor behind: T forgets a past that the factor keeps."""
        place, other, far = self.starts.get(factor), self._other_past, self.graph.far(factor) or 0
        if place is None or other is None or far <= piece.reach * _LESS_FAR or not self._forgets(piece):
            return False
        both = (values[factor].movedim(place.axis, 0)[place.first :] for values in (self.labels.values, other))
        return not self._is_later_same(*both)

    def _with_factors(self, piece: Piece) -> Piece:
        """The map with the factors behind its end that belong to T: scales, denominators, and what cancels in T."""
        now, longest = piece.end.tensor, piece
        while len(users := self._users[now]) == 1:
            (node,), of = users, self.labels.of
            factors = [tensor for _, tensor in node.inputs if tensor != now and tensor in of]
            is_product = node.name in ("mul", "div", "bmm", "addcdiv") and len(factors) <= 1
            is_one = len(node.outs) == 1 and self._size(node.outs[0]) == self._size(now)
            if not is_one or not (is_product or (not factors and self._laid_out(node))):
                break
            now = node.outs[0]
            if not is_product:
                continue
            known = self.graph.uses(piece.start.tensor, now) if now in self._every_end else ()
            longer = [self._piece(piece.start.tensor, now, uses) for uses in known if uses >= piece.uses]
            if not longer or now not in longer[0].steps or longer[0].step.mixing != piece.step.mixing:
                break
            belong = (self._divides(node, at) or self._is_cancelled(at, longest, longer[0]) for at in factors)
            if not all(belong) or self._channels(longer[0]) is None:
                break
            longest = longer[0]
        return longest

    def _is_cancelled(self, factor: int, piece: Piece, longer: Piece) -> bool:
        """Whether a factor behind a map makes T forget the past."""
        is_far = (self.graph.far(factor) or 0) > piece.reach * _LESS_FAR
        return is_far and self._forgets(longer) and not self._forgets(piece)

    def _forgets(self, piece: Piece) -> bool:
        """Whether T of later positions is the same with another past, as where sums of logarithms cancel."""
        if self._other_past is None:
            return False
        channels = torch.arange(piece.ended.shape[1])
        given, other = (part.columns(channels) for part in (piece, replace(piece, values=self._other_past)))
        # (L, L, channels): columns, rows.
        start = 2 * self.labels.length // 3
        return self._is_later_same(*(part[:, start:] for part in (given, other)))

    def _is_later_same(self, given: Tensor, other: Tensor) -> bool:
        """Test that two tensors, positions first, whose texts differ in the first third, agree in the last third."""
        # Weights read a few tokens before their own position, so that the second third may differ too.
        start = 2 * self.labels.length // 3
        return not bool(self._differ(given[start:], other[start:]).any())

    def _weights(self, piece: Piece, other: set[int]) -> set[int]:
        """The tensors that the factors on the way of a map follow from, without those of `other`."""
        of, found = {out for node in piece.nodes for out in node.outs}, set[int]()
        for node in reversed(self.graph.tape.nodes):
            if any(out in found for out in node.outs):
                found.update(tensor for _, tensor in node.inputs)
            elif any(out in of for out in node.outs):
                on = [(node, at) in piece.uses or tensor in of for at, (_, tensor) in enumerate(node.inputs)]
                added = others(node, on)
                found.update(tensor for at, (_, tensor) in enumerate(node.inputs) if not on[at] and at not in added)
                found -= other
        return found

    def _normalises(self, piece: Piece, best: list[Piece]) -> bool:
        """Whether what is mixed of a start is divided by what follows from it, and not from a factor beside it."""
        divisors, steps = set[int](), piece.steps
        for node in piece.nodes:
            ids = [tensor for _, tensor in node.inputs]
            if any(tensor in steps and steps[tensor].mixing for tensor in ids):
                divisors.update(tensor for tensor in ids if tensor not in steps and self._divides(node, tensor))
        made_of = {
            tensor
            for divisor in divisors
            for node in before(self.graph.tape, [divisor], self.given)
            for _, tensor in node.inputs
        }
        beside = {self._computed(other.start.tensor) for other in best if other.end == piece.end}
        return self._computed(piece.start.tensor) in made_of and not beside <= made_of

    def _divides(self, node: Node, factor: int) -> bool:
        """Whether a product is a quotient by what is mixed."""
        made = self.labels.tape.made.get(factor)
        # One by a tensor, perhaps times a number or in another layout.
        while made is not None and len(made.inputs) == 1 and (made.name == "mul" or self._laid_out(made)):
            made = self.labels.tape.made.get(made.inputs[0][1])
        is_inverse = made is not None and made.name in ("reciprocal", "rsqrt", "pow")
        return (node.name in ("div", "addcdiv") or is_inverse) and (self.graph.far(factor) or 0) > 0
