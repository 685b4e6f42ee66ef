"""Layers compute only what lies behind a cut, where a run has shown that nothing before it changes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from statesize.adapters.kernels.attention import Attend, replaced_attention
from statesize.adapters.kernels.rotation import Rotation
from statesize.adapters.models.model_state import NamedModules
from statesize.adapters.replaced import source_files
from statesize.truncation.continuation import Continuation


@dataclass(eq=False)
class SharedPast:
    """What linear layers and attention by `sdpa` return before a cut, in several runs over one text.

    Runs that change the most note it first: layers that return the same there need not compute it again.

    Attributes:
        cut: Position i.
        length: Positions L of the text.
        settled: Whether runs have shown what does not change.
        outputs: What each layer returns at positions before the cut; None where it changed.
        rotations: What moves queries of each mixer, by its name.
        continuation: The model over the positions behind the cut alone, once it is known to be the same.
    """

    cut: int
    length: int
    settled: bool = False
    outputs: dict[nn.Module, Tensor | None] = field(default_factory=dict[nn.Module, Tensor | None])
    rotations: dict[str, Rotation | None] = field(default_factory=dict[str, "Rotation | None"])
    _attended: set[nn.Module] = field(default_factory=set[nn.Module], init=False)
    continuation: Continuation = field(init=False)

    def __post_init__(self) -> None:
        self.continuation = Continuation(self.cut, self.length)

    def attach(self, parts: NamedModules, stack: ExitStack) -> None:
        """Change these layers of a model for a run."""
        self._attended.clear()
        if not self.settled:
            self.continuation.attach(parts, stack)
        stack.enter_context(replaced_attention(source_files(parts), self._attending))
        for _, module in parts:
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

    def _attending(self, name: str, function: Attend) -> Attend:
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
            if before is not None:
                visible = self._visible(query.device) if mask is None else mask[..., self.cut :, :]
                rows = function(module, query[:, :, self.cut :], key, value, visible, **options)
                return torch.cat([before, rows[0]], 1), *rows[1:]
            result = function(module, query, key, value, mask, **options)
            if shared:
                self._noted(module, result[0])
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
            first = self.outputs.setdefault(module, rows)
            if first is None or not torch.equal(first, rows):
                self.outputs[module] = None
        return output
