"""What a model predicts, whatever its forward returns."""

from __future__ import annotations

import inspect

from torch import Tensor, nn


def logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Logits (S, L, V) of token ids (S, L), by a forward pass without a cache that returns them or has them."""
    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    output = model(tokens, **options)
    return output if isinstance(output, Tensor) else output.logits
