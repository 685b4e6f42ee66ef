"""Whether a module mixes positions by more than the kernels that were seen in it, seen by running it again."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from statesize.adapters.forward import Forward
from statesize.adapters.models.layout import position_axis
from statesize.adapters.models.model_state import mapped
from statesize.adapters.models.precision import BOUNDS, relative_difference, set_autocast
from statesize.adapters.models.sharded import class_of
from statesize.adapters.observation import NOT_CAUSAL, ModuleStack, Observation, Product
from statesize.adapters.runs import observed, read, reading, returning
from statesize.adapters.select import is_own_code
from statesize.adapters.watch import Call
from statesize.errors import ModelError

BEFORE = "its values are mixed before: T is without that"
BESIDE = "positions are mixed beside the map too"
UNSEEN = "Whether it mixes by more than this was not seen: what it returns has no dimension of positions."
SEVERAL = "several maps mix the same values, each with a T of its own: the module's is made of all"
BACKWARDS = "positions are mixed backwards too: T is without that"


@torch.no_grad()
def other_mixing(forward: Forward, call: Call, measured: Collection[nn.Module] = ()) -> list[str]:
    """What a module mixes positions by beside the kernels seen in it.

    The module runs with the recorded arguments: as it is; with another input at one position, while every kernel
    returns what it returned before; and with what the kernels return changed at that position. Whatever then differs at
    other positions has come there by another way. Then it runs with other futures, which must not change the past.

    Args:
        forward: The model and its inputs.
        call: The call of the module.
        measured: Modules inside that are measured by themselves.

    Returns:
        Which of BEFORE, BESIDE, SEVERAL, UNSEEN and BACKWARDS.

    Raises:
        ModelError: Mixing behind the kernels, by which T is not what leaves the module, or a map of the future.
    """
    position, limit = forward.length // 3, BOUNDS[call.dtype]
    plain = _LoneRun.of(forward, call, parts=measured)
    if not plain.products:
        return []
    if plain.output is None:
        return [UNSEEN]
    changed = _with_arguments(call, forward.length, partial(changed_input, length=forward.length, position=position))
    mixed = [product.mixed for product in plain.products]
    other_input = _LoneRun.of(forward, changed, mixed)
    other_result = _LoneRun.of(forward, call, [changed_at(one.mixed, one.axis, position) for one in plain.products])
    if len(other_input.products) != len(plain.products):
        raise ModelError(
            f"Mixer {call.name}: running it again with other numbers executed a different code path. Its forward must "
            "depend on no values of its arguments, and on no counter, clock or global."
        )
    axis = cast("int", position_axis(plain.output, forward.length))
    if other_input.output is None or other_result.output is None:
        return [UNSEEN]
    if _differs(plain.output, other_result.output, axis, position) > limit:
        raise ModelError(
            f"Mixer {call.name}: what its map returns is mixed over positions once more before it leaves the module, "
            "so that this map is not the module's T. Give the class a method `operator(hidden)` that returns a "
            "statesize Operator of the whole."
        )
    seen: list[str] = []
    if any(
        _differs(one.values, other.values, one.values_axis, position) > limit
        for one, other in zip(plain.products, other_input.products, strict=True)
    ):
        seen.append(BEFORE)
    beside = other_input.output
    if measured and _differs(plain.output, beside, axis, position) > limit:
        beside = _LoneRun.of(forward, changed, mixed, held_parts=plain.returned).output
    if beside is not None and _differs(plain.output, beside, axis, position) > limit:
        seen.append(BESIDE)
    if len(call.caches) > len({cache or index for index, cache in enumerate(call.caches)}):
        seen.append(SEVERAL)
    if _mixes_backwards(forward, call, plain, axis):
        seen.append(BACKWARDS)
    return seen


def _mixes_backwards(forward: Forward, call: Call, plain: _LoneRun, axis: int) -> bool:
    """Whether another future changes the past of what a module returns; a map that it changes is refused."""
    limit, backwards = BOUNDS[call.dtype], False
    for cut, change in other_futures(forward.length):
        other = _LoneRun.of(forward, _with_arguments(call, forward.length, change))
        for one, two in zip(plain.products, other.products, strict=False):
            before = _before(one.values, two.values, one.values_axis, cut)
            after = _before(one.mixed, two.mixed, one.axis, cut)
            if before <= limit < after:
                raise ModelError(
                    f"Mixer {call.name} must be causal, but other input from position {cut} on changes what its map "
                    f"makes of the values before, by {after:.1e} of the largest value. statesize measures causal "
                    "models."
                )
        backwards |= other.output is not None and _before(cast("Tensor", plain.output), other.output, axis, cut) > limit
    return backwards


def _before(one: Tensor, other: Tensor, axis: int, cut: int) -> float:
    """The largest difference before a position, relative to the largest value."""
    if one.shape != other.shape:
        return float("inf")
    earlier = [tensor.narrow(axis, 0, cut) for tensor in (one, other)]
    return relative_difference(earlier[1], earlier[0])


def mixed_backwards(
    forward: Forward, calls: Sequence[Call], hidden: Tensor | None, around: Sequence[str], limit: float
) -> list[str]:
    """What is told of each call of a mixer in a model that is not causal; nothing where other tokens change no past."""
    # hidden: The last hidden state; None leaves out the runs with other tokens.
    # around: Names of modules that were seen to mix positions backwards around what is measured in them.
    # limit: The largest difference of the last hidden state that is rounding.
    # Models of libraries are compared with oracles of their own.
    own = hidden is not None and any(map(is_own_code, forward.model.modules()))
    depend = _changed_by_later_tokens(forward, calls, hidden, limit) if own and hidden is not None else None
    if not around and depend is None:
        return []
    inner = [name for name in around if name != class_of(forward.model).__name__]
    told = f"{NOT_CAUSAL}: positions are mixed backwards {_where(calls, depend, inner)}."
    if depend is None:
        return [f"{told} What enters this layer may depend on later tokens."] * len(calls)
    changed, same = (
        f"{told} What enters this layer depends on later tokens: its ESS is that of its T, and no memory of the past "
        "alone.",
        f"{told} What enters this layer does not depend on later tokens: its ESS holds.",
    )
    return [changed if one else same for one in depend]


def _where(calls: Sequence[Call], depend: Sequence[bool] | None, inner: Sequence[str]) -> str:
    """The module that mixes positions backwards, or between which layers that happens."""
    if inner:
        return f"in {inner[0]}{f' and {len(inner) - 1} more' if inner[1:] else ''}"
    if depend is None:
        return "somewhere"
    first = next((at for at, one in enumerate(depend) if one), len(calls))
    bounds = [("after", calls[first - 1 : first]), ("before", calls[first : first + 1])]
    return " and ".join(f"{side} {one.labels[0]}" for side, some in bounds for one in some)


def _changed_by_later_tokens(
    forward: Forward, calls: Sequence[Call], hidden: Tensor, limit: float
) -> list[bool] | None:
    """Whether later tokens change what each call takes before them; None where the last hidden state stays the same."""
    axis, found, depend = position_axis(hidden, forward.length), False, [False] * len(calls)
    for cut, change in other_futures(forward.length)[:2] if axis is not None else ():
        waiting = {call.module: [at for at, one in enumerate(calls) if one.module is call.module] for call in calls}

        def enter(
            module: nn.Module, args: object, kwargs: object, cut: int = cut, waiting: dict[Any, list[int]] = waiting
        ) -> None:
            if waiting[module]:
                at = waiting[module].pop(0)
                before = tree_leaves((calls[at].args, calls[at].kwargs))
                pairs = zip(before, tree_leaves((args, kwargs)), strict=False)
                depend[at] |= any(_differ_before(*pair, forward.length, cut) > limit for pair in pairs)

        name = forward.measured.name
        text = {name: change(forward.kwargs[name])} if not forward.args else {}
        changed = replace(forward, args=tuple(map(change, forward.args)), kwargs={**forward.kwargs, **text})
        other = changed.hidden(read, enter=dict.fromkeys(waiting, enter), leave={})
        found |= other is not None and not _before(hidden, other, cast("int", axis), cut) <= limit
    return depend if found else None


def _differ_before(one: object, other: object, length: int, cut: int) -> float:
    """How far two arguments differ before a position; 0 where they have none."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or not one.is_floating_point():
        return 0.0
    axis = position_axis(one, length)
    return 0.0 if axis is None else _before(one, other, axis, cut)


@dataclass(eq=False)
class _LoneRun:
    """A module run alone."""

    products: list[Product] = field(default_factory=list[Product])
    returned: dict[nn.Module, list[object]] = field(default_factory=dict[nn.Module, list[object]])  # by parts
    output: Tensor | None = None

    @classmethod
    def of(
        cls,
        forward: Forward,
        call: Call,
        held: list[Tensor] | None = None,
        parts: Collection[nn.Module] = (),
        held_parts: Mapping[nn.Module, list[object]] | None = None,
    ) -> _LoneRun:
        """Run a module; `held` is what its kernels return instead, in the order of their calls, and so for parts."""
        run = cls(returned={part: [] for part in parts})

        def observe(make: Callable[[], Observation], product: Product | None = None) -> Tensor | None:
            if product is None:
                return None
            run.products.append(product)
            position = len(run.products) - 1
            return held[position] if held is not None and position < len(held) else None

        leave = {part: _keeping(outputs) for part, outputs in run.returned.items()}
        leave |= {part: returning(outputs) for part, outputs in (held_parts or {}).items()}
        output: object = observed(
            forward.model,
            lambda: call.module(*call.args, **call.kwargs),
            ModuleStack(call.module, forward.length),
            observe,
            name=call.name,
            part=call.module,
            attach=lambda stack: (set_autocast(call.autocast), reading({}, leave, stack)),
        )
        run.output = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
        rows = (forward.sequences, forward.length)
        if run.output is not None and position_axis(run.output, forward.length) is None:
            # Some layers return the positions of all sequences as rows.
            run.output = run.output.unflatten(0, rows) if run.output.shape[:1] == (math.prod(rows),) else None
        return run


def _keeping(outputs: list[object]) -> Callable[..., None]:
    def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        outputs.append(output)

    return leave


def _with_arguments(call: Call, length: int, change: Callable[[Tensor], Tensor]) -> Call:
    """The same call with other tensors."""
    arguments = call.args, call.kwargs
    acts = can_be_others(arguments, length)
    args, kwargs = mapped(arguments, lambda leaf: change(leaf) if isinstance(leaf, Tensor) and acts(leaf) else leaf)
    return replace(call, args=args, kwargs=kwargs)


def can_be_others(arguments: object, length: int) -> Callable[[Tensor], bool]:
    """Which arguments may be other ones: whole numbers beside real ones say where positions are, such as their ids."""
    leaves = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    real = any(position_axis(leaf, length) is not None for leaf in leaves)
    return lambda tensor: tensor.is_floating_point() or not real


def changed_input(tensor: Tensor, length: int, position: int | slice) -> Tensor:
    """An argument with other numbers at some positions, if it has positions."""
    axis = None if tensor.dtype == torch.bool else position_axis(tensor, length)
    return tensor if axis is None else changed_at(tensor, axis, position)


def other_futures(length: int, rounds: int = 1) -> list[tuple[int, Callable[[Tensor], Tensor]]]:
    """Cuts, and what makes an argument another one from the cut on: what came before, or what exceeds all of it."""
    # rounds: Draws of each. Four futures miss what depends on few tokens, such as the places of the highest scores.
    # Where places are chosen by the data, as by their score, the first frees those of the future, the second takes
    # those of the past.
    middle = max(1, length // 2)
    cuts = [(middle, True), (middle, False), (max(1, length // 4), False), (max(1, 3 * length // 4), True)]
    return [
        (cut, partial(_other_future, length=length, cut=cut, repeats=repeats, seed=cut + length * number))
        for number in range(rounds)
        for cut, repeats in dict.fromkeys(cuts)
    ]


def _other_future(tensor: Tensor, *, length: int, cut: int, repeats: bool, seed: int) -> Tensor:
    axis = None if tensor.dtype == torch.bool else position_axis(tensor, length)
    # A map of positions by positions, such as a mask, has no past of its own.
    if axis is None or tensor.shape == (length, length):
        return tensor
    moved, generator = tensor.movedim(axis, 0).clone(), torch.Generator().manual_seed(seed)
    if tensor.is_floating_point() and not repeats:
        noise = torch.randn(moved[cut:].shape, generator=generator, device="cpu").to(moved)
        moved[cut:] += 3 * noise * moved[moved.isfinite()].double().std().to(moved.dtype)
    else:
        chosen = torch.randint(cut if repeats else length, (length - cut,), generator=generator, device="cpu")
        moved[cut:] = moved[chosen.to(moved.device)]
    return moved.movedim(0, axis)


def changed_at(tensor: Tensor, axis: int, position: int | slice) -> Tensor:
    """A copy with other numbers at some positions: random ones of the tensor's scale, or ids of other positions."""
    moved = tensor.movedim(axis, 0).clone()
    if tensor.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(moved[position].shape, generator=generator, device="cpu").to(moved)
        finite = moved[moved.isfinite()].double()
        # What is equal everywhere has no scale of its own, nor has a single number.
        moved[position] += noise * ((len(finite) > 1 and float(finite.std())) or 1.0)
    elif isinstance(position, slice):
        moved[position] = moved.roll(1, 0)[position]
    else:
        others = (moved != moved[position]).flatten(1).any(1).nonzero().flatten()
        moved[position] = moved[others[0]] if len(others) else 1 - moved[position].clamp(0, 1)
    return moved.movedim(0, axis)


def _differs(one: Tensor, other: Tensor, axis: int, position: int) -> float:
    """The largest difference at other positions, relative to the largest value."""
    if one.shape != other.shape:
        return float("inf")
    elsewhere = torch.arange(one.shape[axis], device=one.device) != position
    difference = (one - other).movedim(axis, 0)[elsewhere]
    scale = one.abs().max()
    return float(difference.abs().max() / scale) if bool(scale > 0) else 0.0
