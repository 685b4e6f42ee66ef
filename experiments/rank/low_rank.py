"""Runs of a model whose H_i, or whose states, have a lower rank at one position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor

from statesize.lab.mixers import LanguageModel, Mixer
from statesize.metrics import entropy_ess


def run_with_past_cut(
    model: LanguageModel, input_ids: Tensor, cut: int, kept: Sequence[Tensor] = ()
) -> tuple[Tensor, list[Tensor]]:
    """Logits from the cut on, (S, L − i, V), H_i of each layer cut to ranks (S, H); and its entropy-ESS (S, H)."""
    entropies: list[Tensor] = []

    def mixing(mixer: Mixer, original: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def mixed_values(hidden: Tensor) -> Tensor:
            mixed, block = original(hidden), mixer.operator(hidden).dense()[..., cut:, :cut].double()
            left, sigma, right = _svd(block)
            if kept:
                lost = left * _behind(sigma, kept[len(entropies)]) @ right @ mixer.values(hidden)[:, :, :cut].double()
                mixed = torch.cat([mixed[:, :, :cut], (mixed[:, :, cut:] - lost).to(mixed.dtype)], 2)
            entropies.append(entropy_ess(sigma))
            return mixed

        return mixed_values

    with ExitStack() as stack:
        for block in model.blocks:
            vars(block.mixer)["mixed_values"] = mixing(block.mixer, block.mixer.mixed_values)
            stack.callback(delattr, block.mixer, "mixed_values")
        return model(input_ids)[:, cut:], entropies


def run_with_states_cut(
    model: LanguageModel, input_ids: Tensor, cut: int, kept: Sequence[Tensor] = ()
) -> tuple[Tensor, list[Tensor]]:
    """Logits from the cut on, (S, L − i, V), with the states there cut to ranks (S, H); and these (S, H, n, d_v)."""
    caches = model.initial_caches(len(input_ids))
    for token in input_ids[:, :cut].T:
        _, caches = model.step(token, caches)
    position, *layers = caches
    states: list[Tensor] = [cache[1] for cache in layers]  # after what the short convolution keeps
    if kept:
        smaller = map(_low_rank, states, kept)
        layers = [(cache[0], state, *cache[2:]) for cache, state in zip(layers, smaller, strict=True)]
    caches, logits = [position, *layers], list[Tensor]()
    for token in input_ids[:, cut:].T:
        following, caches = model.step(token, caches)
        logits.append(following)
    return torch.stack(logits, 1), states


def _low_rank(matrices: Tensor, kept: Tensor) -> Tensor:
    """The best approximations of ranks (...) to matrices (..., n, d)."""
    left, sigma, right = _svd(matrices.double())
    return (matrices - (left * _behind(sigma, kept)) @ right).to(matrices.dtype)


def _svd(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return cast("Any", torch.linalg).svd(matrices, full_matrices=False)


def _behind(sigma: Tensor, kept: Tensor) -> Tensor:
    """Singular values behind the first (...), (..., 1, m)."""
    return (sigma * (torch.arange(sigma.shape[-1]) >= kept[..., None]))[..., None, :]
