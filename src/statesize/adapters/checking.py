"""Which references a model's next reading is compared with, where it is read again and again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

Checks = Literal["all", "read", "none"]


@dataclass(eq=False)
class Checking:
    """What a model that is read again and again is compared with.

    Attributes:
        after: What readings are compared with once the model has passed all checks, until one of its modules or dtypes
            is another one.

    Example:
        >>> checking, model = Checking("none"), nn.Linear(2, 2)
        >>> checking.next(model), checking.next(model), checking.next(model.double())
        ('all', 'none', 'all')
    """

    after: Checks
    _passed: tuple[object, ...] | None = field(default=None, init=False)

    def next(self, model: nn.Module) -> Checks:
        """What the next reading is compared with."""
        modules = tuple((id(module), type(module)) for module in model.modules())
        dtypes = tuple[torch.dtype, ...](parameter.dtype for parameter in model.parameters())
        before, self._passed = self._passed, (modules, dtypes)
        return self.after if before == self._passed else "all"
