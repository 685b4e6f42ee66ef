"""One call of a module, to be run alone, and the dimension of positions of what enters and leaves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from statesize.adapters.forward import Forward, Placed
from statesize.adapters.models.model_state import mapped, named_parts, position_axis, returned_tensor, tensors_in
from statesize.adapters.models.precision import at_least, hold_at_least
from statesize.adapters.observation import ModuleStack, Observation, OpenSource, Product
from statesize.adapters.other_inputs import other_text
from statesize.adapters.runs import bare, observed
from statesize.adapters.watch import Call, passages
from statesize.parallel.threads import one_thread

# Differences below this part of the largest value are rounding.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """A module of a model with the arguments of one call."""

    model: nn.Module  # the model
    module: nn.Module  # the module
    args: tuple[Any, ...]  # its positional arguments
    kwargs: Mapping[str, Any]  # its keyword arguments
    length: int  # positions of the text, L
    texts: int = 1  # number of texts, S
    named: nn.Module | None = None  # the part of the module whose output T acts on; None where it is to be found
    # The dimension of positions of each tensor that enters, in the order of `tensors`: None for one that follows from
    # no position of the text. Where they are left out, their shapes tell.
    axes: tuple[int | None, ...] = ()
    # The same of the tensors that enter and leave modules, the module's own parts among them.
    placed: Mapping[nn.Module, Placed] = field(default_factory=dict[nn.Module, Placed])
    sources: Sequence[OpenSource] = ()  # those that see kernels while it runs

    def __post_init__(self) -> None:
        if not self.axes:
            object.__setattr__(self, "axes", tuple(position_axis(tensor, self.length) for tensor in self.tensors))

    @classmethod
    def of(cls, forward: Forward, call: Call) -> Self:
        """A call that was seen in a run of the model."""
        if call.module not in forward.placed:
            first_calls(forward, [call.module])
        arguments, found = (call.args, call.kwargs), forward.placed.get(call.module)
        made = cls(forward.model, call.module, *arguments, forward.length, forward.sequences_in(arguments))
        return replace(made, axes=made.axes if found is None else found.entering, placed=forward.placed)

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that enter, in order."""
        return tensors_in((self.args, dict(self.kwargs)), real=False)

    @property
    def with_positions(self) -> list[tuple[Tensor, int]]:
        """The tensors that enter and have positions of the text, with their dimension."""
        return [(tensor, axis) for tensor, axis in zip(self.tensors, self.axes, strict=True) if axis is not None]

    def with_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Replace the tensors of this call that hold positions of the text."""
        numbers = count()

        def changed(leaf: object) -> object:
            if not isinstance(leaf, Tensor):
                return leaf
            return leaf if self.axes[next(numbers)] is None else change(leaf)

        args, kwargs = mapped((self.args, dict(self.kwargs)), changed)
        return replace(self, args=args, kwargs=kwargs)

    def beginning(self, length: int) -> Self:
        """Cut this call to the first positions of the text."""

        def cut(leaf: object) -> object:
            if not isinstance(leaf, Tensor) or (axis := position_axis(leaf, self.length)) is None:
                return leaf
            # A mask has positions on both dimensions.
            square = leaf.ndim > 1 and leaf.shape[-2:] == (self.length, self.length)
            return leaf[..., :length, :length] if square else leaf.narrow(axis, 0, length)

        args, kwargs = mapped((self.args, dict(self.kwargs)), cut)
        return replace(self, args=args, kwargs=kwargs, length=length)

    def returned(self, output: object) -> Tensor | None:
        """The tensor that the module mixes positions into, of what a run has returned."""
        return returned_tensor(output, (self.args, dict(self.kwargs)), self.length)

    def leaving(self, module: nn.Module, tensor: Tensor) -> int | None:
        """The dimension of positions of what a module returns."""
        usual, found = position_axis(tensor, self.length), self.placed.get(module)
        if usual is None or found is None or found.leaving is None or tensor.shape[found.leaving] != self.length:
            return usual
        return found.leaving

    def run(
        self,
        inside: Callable[[Callable[[], Any]], Any],
        dtype: torch.dtype,
        entering: Callable[[Tensor], Tensor] = torch.clone,
        seen: Callable[[Product], object] | None = None,
    ) -> Any:
        """Run the module alone, on the CPU: what `inside` returns of what it is given, which calls the module."""
        # dtype: The least that the module computes in. entering: Takes each tensor that enters, and returns what takes
        # its place. seen: Takes what each kernel mixes that the sources see in the module itself.

        def attach(stack: ExitStack) -> None:
            # Two threads take longer for small matrices.
            stack.enter_context(one_thread())
            hold_at_least(self.module, dtype, stack, torch.device("cpu"))

        def call() -> Any:
            arguments = at_least((self.args, dict(self.kwargs)), dtype)
            args, kwargs = mapped(
                arguments, lambda leaf: entering(leaf.cpu()).cpu() if isinstance(leaf, Tensor) else leaf
            )
            with sdpa_kernel(SDPBackend.MATH):
                return inside(lambda: self.module(*args, **kwargs))

        if seen is None or not self.sources:
            return bare(self.model, call, self.module, attach)
        parts = named_parts(self.module)
        running = ModuleStack(parts, self.length, exact=True, sequences=self.texts, sources=self.sources)

        def record(make: Callable[[], Observation], product: Product | None = None) -> None:
            if product is not None and len(running.frames) == 1:
                seen(product)

        return observed(self.model, call, running, record, attach)


def first_calls(forward: Forward, modules: Iterable[nn.Module]) -> dict[nn.Module, ModuleCall]:
    """The first call of each of some modules in a run of the model, in the order in which these return."""
    # A second run, over texts with another second half, tells the dimension of positions, which `Forward.placed` has:
    # along it only what lies behind the cut changes.
    cut, placed, calls = forward.length // 2, forward.placed, dict[nn.Module, ModuleCall]()
    _, seen = passages(forward, modules, torch.clone)
    _, changed = passages(forward.with_texts(other_text(slice(cut, None))), seen, torch.clone)
    for module, (frame, *_) in seen.items():
        if module not in changed:
            continue
        arguments, again = (frame.args, frame.kwargs), changed[module][0]
        texts = forward.sequences_in(arguments)
        call = ModuleCall(forward.model, module, *arguments, forward.length, texts, placed=placed)
        if module not in placed:
            pairs = zip(call.tensors, tensors_in((again.args, again.kwargs), real=False), strict=False)
            output, other = frame.output, again.output
            leaving = None if output is None or other is None else _axis(output, other, forward.length, cut)
            placed[module] = Placed(tuple(_axis(*pair, forward.length, cut) for pair in pairs), leaving)
        calls[module] = replace(call, axes=placed[module].entering)
    return calls


def _axis(tensor: Tensor, other: Tensor, length: int, cut: int) -> int | None:
    """The dimension of positions of a tensor that is another one in a text with another second half; None if equal."""
    usual = position_axis(tensor, length)
    if tensor.shape != other.shape:
        return usual
    differ = tensor != other
    if tensor.is_floating_point() and bool(differ.any()):
        # Infinity marks what a query may not see.
        differ &= ~((tensor - other).abs() <= _ROUNDING * tensor.nan_to_num(0.0, 0.0, 0.0).abs().amax())
    if not bool(differ.any()):
        return None
    later = [axis for axis, size in enumerate(tensor.shape) if size >= length and not differ.narrow(axis, 0, cut).any()]
    causal = [axis for axis in later if tensor.shape[axis] == length]
    # Where positions lie on a longer dimension, as behind registers, another one of their number is of other things.
    return usual if usual in causal else next(iter(causal), None if later else usual)
