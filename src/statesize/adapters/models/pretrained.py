"""The parts of a model that are transformers models; nothing is imported where none is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import nn


def pretrained_models(model: nn.Module) -> list[Any]:
    """The transformers models in a module, itself included, outermost first.

    Args:
        model: Any module.

    Returns:
        Each PreTrainedModel in it.
    """
    library = sys.modules.get("transformers.modeling_utils")
    if library is None:
        return []
    return [module for module in model.modules() if isinstance(module, library.PreTrainedModel)]


def configurations(model: nn.Module, suits: Callable[[Any], bool] = lambda _: True) -> list[Any]:
    """The configuration objects that the parts of a model read, each once.

    Args:
        model: Any module.
        suits: Whether a transformers model in it is asked for; its parts follow it unless they are models themselves.

    Returns:
        Configurations of transformers.
    """
    found: dict[int, Any] = {}
    refused: set[int] = set()
    for part in pretrained_models(model):
        suitable = suits(part)
        for module in part.modules():
            config = getattr(module, "config", None)
            if config is None or not hasattr(config, "_attn_implementation_internal"):
                continue
            if suitable:
                found[id(config)] = config
            else:
                refused.add(id(config))
    return [config for key, config in found.items() if key not in refused]
