"""Slots that forget as weights are normalised: ABC, GSA, LightNet."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.fla.call import FlaCall
from statesize.adapters.watching.observation import Units
from statesize.operators import Recurrence


def gated_slots(call: FlaCall, units: Units) -> Recurrence:
    """GSA (Zhang et al. 2024, arXiv 2409.07146) and ABC: a gated memory of values, read by a softmax over its slots."""
    key, query = call.keys_and_queries(units)
    slots = call.part("s", units)
    if call.arguments.get("g") is None:
        slots, decay = _running_softmax(slots)
    else:
        decay = call.part("g", units).exp()
    return Recurrence(decay, slots, _scores(key, query, slots, decay).softmax(-1))


def light(call: FlaCall, units: Units) -> Recurrence:
    """LightNet (Qin et al. 2024, arXiv 2405.21022): the key dimensions are such slots, read by queries."""
    logits, query = call.keys_and_queries(units)
    weight, decay = _running_softmax(logits)
    return Recurrence(decay, weight, query)


def _running_softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Weights exp(s_t) over the sum of all so far, and by how much that shrinks earlier ones."""
    total = logits.logcumsumexp(-2)
    decay = torch.exp(functional.pad(total[..., :-1, :], (0, 0, 1, 0)) - total)
    # Nothing comes before the first.
    decay[..., 0, :] = 1
    return torch.exp(logits - total), decay


def _scores(key: Tensor, query: Tensor, slots: Tensor, decay: Tensor) -> Tensor:
    """What queries find in the memory of keys, (S, units, L, slots)."""
    memory = key.new_zeros((*key.shape[:-2], key.shape[-1], slots.shape[-1]))
    scores: list[Tensor] = []
    for t in range(key.shape[-2]):
        memory = decay[..., t, None, :] * memory + key[..., t, :, None] * slots[..., t, None, :]
        scores.append((query[..., t, None, :] @ memory).squeeze(-2))
    return torch.stack(scores, -2)
