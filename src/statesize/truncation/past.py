"""Linear layers compute only what lies behind a cut, where a run has shown that nothing before it changes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn


@dataclass(eq=False)
class SharedPast:
    """What linear layers return before a cut, in several runs over one text.

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

    def attach(self, model: nn.Module, stack: ExitStack) -> None:
        """Change the linear layers of a model for a run."""
        for module in model.modules():
            if type(module) is nn.Linear and "forward" not in vars(module):
                # Hooks of the layer see all positions.
                vars(module)["forward"] = partial(self._forward, module)
                stack.callback(vars(module).pop, "forward")

    def _forward(self, module: nn.Linear, inputs: Tensor) -> Tensor:
        if inputs.shape[:-1] != (1, self.length):
            return nn.Linear.forward(module, inputs)
        if self.settled:
            before = self.outputs.get(module)
            if before is None:
                return nn.Linear.forward(module, inputs)
            return torch.cat([before, nn.Linear.forward(module, inputs[:, self.cut :])], 1)
        output = nn.Linear.forward(module, inputs)
        rows = output[:, : self.cut].detach().clone()
        known = self.outputs.setdefault(module, rows)
        if known is None or not torch.equal(known, rows):
            self.outputs[module] = None
        return output
