"""Attention probabilities as an Observation, wherever they were seen."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.adapters.observation import Observation, Units, unchanged
from statesize.errors import ModelError
from statesize.operators import Dense


def observed_probabilities(
    name: str,
    probabilities: Tensor,
    values: Tensor,
    mixed: Tensor,
    *,
    seen: Tensor | None,
    window: int | None,
    state_bytes: int,
) -> Observation:
    """The Observation of one call of an attention function.

    Args:
        name: Module name of the mixer.
        probabilities: T, (S, H, L, L).
        values: u, (S, K, L, P); each of the K key-value heads serves H / K consecutive heads.
        mixed: y, (S, H, L, P).
        seen: (L, L) boolean, which positions (columns) a query may see; None takes those that any head gives weight.
        window: How many positions a query sees, itself included; None for all.
        state_bytes: What the model's cache holds of this mixer at the end of one sequence.

    Returns:
        The Observation; it holds the probabilities of all heads.

    Raises:
        ModelError: If queries and keys are not the same positions, or some query sees a later position.
    """
    sequences, heads, length, keys = probabilities.shape
    if keys != length:
        raise ModelError(
            f"Mixer {name} attends from {length} positions to {keys}: cross-attention or a filled cache. statesize "
            "measures causal language models on the whole text at once."
        )
    # Head by head: a copy of all maps would double what the layer holds.
    if any(bool(head.triu(1).any()) for head in probabilities.flatten(0, 1)):
        raise ModelError(
            f"Mixer {name} attends to later positions: an encoder or a prefix model. statesize measures causal "
            "language models; load a decoder, such as one of AutoModelForCausalLM."
        )
    if seen is None:
        seen = (probabilities > 0).any(0).any(0)
    state_size = _state_size(seen)
    shared = values[:, :, None].expand(-1, -1, heads // values.shape[1], -1, -1).flatten(1, 2)

    def operator(units: Units) -> Dense:
        return Dense(probabilities[:, units], state_size)

    return Observation(
        name=name,
        kind="attention" if window is None else "sliding attention",
        batch_shape=(sequences, heads),
        operator=operator,
        values=shared,
        mixed=mixed,
        passed_on=unchanged,
        multiplicity=values.shape[-1],
        state_size=_filled(state_size) if window is None else window - 1,
        state_bytes=state_bytes,
    )


def _filled(state_size: Tensor) -> int | None:
    # A cache that does not keep the whole past without being a window: attention in chunks.
    keeps_all = torch.equal(state_size, torch.arange(len(state_size), device=state_size.device))
    return None if keeps_all else int(state_size.max())


def _state_size(seen: Tensor) -> Tensor:
    """How many earlier positions the queries from i on may still see, (L,)."""
    length = len(seen)
    position = torch.arange(length, device=seen.device)
    last_reader = torch.where(seen, position[:, None], -1).amax(0)
    # Position j lies in the cache at i where j < i ≤ last_reader[j].
    steps = torch.zeros(length + 1, dtype=torch.int64, device=seen.device)
    read_later = last_reader > position
    steps.scatter_add_(0, (position + 1)[read_later], torch.ones_like(position[read_later]))
    steps.scatter_add_(0, (last_reader + 1)[read_later], -torch.ones_like(position[read_later]))
    return steps[:length].cumsum(0)
