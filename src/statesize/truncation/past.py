"""Layers compute only what lies behind a cut, where a run has shown that nothing before it changes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.kernels.attention import Attend, replaced_attention
from statesize.adapters.observation import Observation, unchanged
from statesize.operators import SoftmaxAttention

Behind = Callable[[nn.Module, Observation], Tensor]
"""What a layer of attention passes on behind the cut in a run, (1, H, L − i, P), given what it would mix whole."""

# Rounding of attention in float32, as a share of the largest number that it returns.
_ROUNDING = 1e-4


@dataclass(eq=False)
class SharedPast:
    """What linear layers and attention by `sdpa` return before a cut, in several runs over one text.

    Runs that change the most note it first: layers that return the same there need not compute it again.

    Attributes:
        cut: Position i.
        length: Positions L of the text.
        settled: Whether runs have shown what does not change.
        outputs: What each layer returns at positions before the cut; None where it changed.
    """

    cut: int
    length: int
    settled: bool = False
    outputs: dict[nn.Module, Tensor | None] = field(default_factory=dict[nn.Module, Tensor | None])
    _attended: set[nn.Module] = field(default_factory=set[nn.Module], init=False)
    _given: tuple[Tensor, Tensor, Tensor, Tensor] | None = field(default=None, init=False)
    _known: dict[nn.Module, Callable[..., Observation]] = field(
        default_factory=dict[nn.Module, Callable[..., Observation]], init=False
    )

    def attach(self, model: nn.Module, stack: ExitStack, behind: Behind) -> None:
        """Change these layers of a model for a run."""
        self._attended.clear()
        stack.enter_context(replaced_attention(model, partial(self._attending, behind)))
        for module in model.modules():
            if type(module) is nn.Linear and "forward" not in vars(module):
                # Hooks of the layer see all positions.
                vars(module)["forward"] = partial(self._forward, module)
                stack.callback(vars(module).pop, "forward")

    def _forward(self, module: nn.Linear, inputs: Tensor) -> Tensor:
        if inputs.shape[:-1] != (1, self.length):
            return nn.Linear.forward(module, inputs)
        if self.settled and (before := self.outputs.get(module)) is not None:
            return torch.cat([before, nn.Linear.forward(module, inputs[:, self.cut :])], 1)
        return self._noted(module, nn.Linear.forward(module, inputs))

    def note(self, module: nn.Module, seen: Observation) -> None:
        """Know T of a layer whose attention was seen to be that of what its function was just given, and its answer."""
        given, self._given = self._given, None
        operator = seen.operator(slice(None))
        if given is None or not isinstance(operator, SoftmaxAttention) or operator.key_bias is not None:
            return
        options = {"scale": operator.scale, "window": operator.window, "soft_cap": operator.soft_cap}
        attention = partial(SoftmaxAttention, **options, sink=operator.sink, checked=True)
        known = partial(_observed, seen.name, seen.kind, seen.groups, attention)
        query, key, value, answer = given
        again = known(query, key, value)
        made = cast("SoftmaxAttention", again.operator(slice(None)))
        pairs = ((made.query, operator.query), (made.key, operator.key), (again.values, seen.values))
        if seen.passed_on is not unchanged or not all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs):
            return
        rows = rows_behind(made, self.cut) @ again.values
        if bool((rows.transpose(1, 2) - answer).abs().max() <= _ROUNDING * answer.abs().max()):
            self._known[module] = known

    def _attending(self, behind: Behind, name: str, function: Attend) -> Attend:
        """An attention function that computes only rows behind the cut where those before are known."""

        def attend(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any = None, **options: Any
        ) -> Any:
            # Whoever observes it may call it again, with values of its own.
            shared = name == "sdpa" and module not in self._attended and len(query) == 1
            shared = shared and query.shape[2] == key.shape[2] == self.length
            # What is added to all scores, such as the position bias of T5, has a row for each query.
            shared = shared and not any(
                isinstance(one, Tensor) and one.ndim > 2 and one.shape[-2] == self.length for one in options.values()
            )
            self._attended.add(module)
            if mask is None and shared:
                causal = options.get("is_causal")
                shared = getattr(module, "is_causal", True) if causal is None else causal
            before = self.outputs.get(module) if self.settled and shared else None
            if before is not None and (known := self._known.get(module)) is not None:
                # Earlier runs have compared T with what the function returns.
                rows = behind(module, known(query, key, value)).transpose(1, 2)
                return torch.cat([before, rows.to(before.dtype)], 1), None
            if before is not None:
                visible = self._visible(query.device) if mask is None else mask[..., self.cut :, :]
                rows = function(module, query[:, :, self.cut :], key, value, visible, **options)
                return torch.cat([before, rows[0]], 1), *rows[1:]
            result = function(module, query, key, value, mask, **options)
            self._given = None
            if shared:
                self._noted(module, result[0])
                self._given = query, key, value, result[0][:, self.cut :]
            return result

        return attend

    def _visible(self, device: torch.device) -> Tensor:
        """Which keys rows behind the cut see, (1, 1, L − i, L)."""
        rows = self.length - self.cut
        return torch.ones(1, 1, rows, self.length, dtype=torch.bool, device=device).tril(self.cut)

    def _noted(self, module: nn.Module, output: Tensor) -> Tensor:
        """What a layer returns, of which what lies before the cut is compared with that of other runs."""
        if not self.settled:
            rows = output[:, : self.cut].detach().clone()
            known = self.outputs.setdefault(module, rows)
            if known is None or not torch.equal(known, rows):
                self.outputs[module] = None
        return output


def rows_behind(attention: SoftmaxAttention, cut: int) -> Tensor:
    """Rows of T behind a cut, (..., L − i, L)."""
    return attention.block(slice(cut, attention.length), slice(0, attention.length))


def _observed(
    name: str, kind: str, groups: int, attention: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor
) -> Observation:
    """A call of attention by queries (1, H, L, d) and keys and values of H / r heads."""
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    operator = attention(query, key)
    return Observation(name, kind, lambda units: operator[:, units], value, value, None, 0, groups=groups)
