"""Masks that are refused before a model runs: what hides a part of a text, or shows later positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from statesize.errors import InputError

UNPADDED = "give texts of different length one after another, without it."
# What is added to scores to hide a position: -inf, the least number of a dtype, or -1e4 as in older models.
HIDING = -1e4


def check_mask(mask: object, length: int, name: str = "attention_mask") -> None:
    """Refuse a mask that hides a part of the text, or shows later positions."""
    if not isinstance(mask, Tensor):
        raise InputError(
            f"{name} must be a tensor, got {type(mask).__name__}. Give what the tokenizer returns with "
            'return_tensors="pt", or leave it out.'
        )
    if mask.ndim == 4:
        _check_causal(mask, length)
    elif not bool(mask.all()):
        raise InputError(f"{name} marks padding; {UNPADDED}")


def added_to_scores(mask: Tensor) -> Tensor:
    """A mask of four dimensions that was checked, as every attention of transformers takes it."""
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill(~_seen(mask), torch.finfo(torch.float32).min)


def check_windows(config: Any, length: int) -> None:
    """Refuse a mask of four dimensions for a model that makes narrower ones, because it would replace them."""
    for name in ("sliding_window", "attention_chunk_size"):
        window: object = getattr(config, name, None)
        if isinstance(window, int) and window < length:
            raise InputError(
                f"attention_mask must have 2 dimensions where the model has {name}={window}, got 4, which would take "
                "its windows. Leave it out: the model masks by itself."
            )


def _seen(mask: Tensor) -> Tensor:
    return mask if mask.dtype == torch.bool else mask == 0


def _check_causal(mask: Tensor, length: int) -> None:
    form = "attention_mask must be the plain causal mask where it has 4 dimensions"
    way_out = "Leave it out: a causal model hides later positions by itself."
    if tuple(mask.shape[-2:]) != (length, length):
        raise InputError(f"{form}, got shape {tuple(mask.shape)} for {length} positions. {way_out}")
    # Integers would be added to the scores as they are.
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise InputError(f"{form}, boolean or added to scores, got {mask.dtype}. {way_out}")
    seen = _seen(mask)
    if mask.dtype != torch.bool and not bool((seen | (mask <= HIDING)).all()):
        raise InputError(f"{form}, got numbers other than 0 and below {HIDING:g}. {way_out}")
    wrong = seen != torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    if bool(wrong.any()):
        *_, query, key = (int(index) for index in wrong.nonzero()[0])
        if key > query:
            raise InputError(f"{form}, got one by which position {query} sees the later position {key}. {way_out}")
        raise InputError(
            f"{form}, got one by which position {query} does not see position {key}: padding, a window "
            f"or several texts in one. Leave it out; {UNPADDED}"
        )
