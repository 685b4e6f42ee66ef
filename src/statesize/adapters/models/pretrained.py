"""The parts of a model that are transformers models; nothing is imported where none is."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn


def pretrained_models(model: nn.Module) -> list[Any]:
    """The transformers models in a module, itself included, outermost first."""
    library = sys.modules.get("transformers.modeling_utils")
    if library is None:
        return []
    return [module for module in model.modules() if isinstance(module, library.PreTrainedModel)]
