"""The model that is left when the states of its heads are cut, and its fine-tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.text import TextTask
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.loop import train_in_memory
from statesize.reduction.bases import StateCut
from statesize.reduction.reducible import Weights, rebuilt, with_changes

_RATE = 1e-3


def fine_tuned(model: LanguageModel, tokens: Tensor, length: int, steps: int) -> LanguageModel:
    """A copy after some steps on windows of tokens (N,), the same ones for every model."""
    copy = with_weights(model.config, model.state_dict())
    task = TextTask(tokens, tokens[:2], min(length, len(tokens) - 1), 1, model.config.vocabulary_size)
    config = TrainingConfig(steps=steps, rate=_RATE, weight_decay=0.01, device=str(model.norm.weight.device))
    with torch.enable_grad():
        for _ in train_in_memory(copy, task, config):
            pass
    return copy.eval()


def smaller_model(model: LanguageModel, cuts: Mapping[int, Sequence[StateCut]]) -> LanguageModel:
    """A copy whose layers have the states of cuts, one for each head, or one for all channels of S6."""
    sizes = tuple(tuple(cut.query_map.shape[1] for cut in cuts.get(layer, ())) for layer in range(model.config.layers))
    config = dataclasses.replace(model.config, state_sizes=sizes)
    weights = dict(model.state_dict())
    for layer, own in cuts.items():
        change = _CHANGES.get(config.mixer_of(layer), _head_weights)
        weights = with_changes(weights, f"layers.{layer}.mixer", partial(change, cuts=own, config=config))
    return with_weights(config, weights)


def with_weights(config: ModelConfig, weights: Weights) -> LanguageModel:
    """A model of some weights, in evaluation mode."""
    return rebuilt(lambda: LanguageModel(config, torch.Generator()), weights)


def rounded_model(model: LanguageModel) -> LanguageModel:
    """A copy that rounds its states to int8 after each token."""
    return with_weights(dataclasses.replace(model.config, state_bits=8), model.state_dict())


def _head_weights(weights: Weights, cuts: Sequence[StateCut], config: ModelConfig) -> dict[str, Tensor]:
    """What changes of the weights of a layer with heads, by name."""
    n, r = config.key_size, max(cut.query_map.shape[1] for cut in cuts)
    like = weights["projection.weight"]
    changed = {"query_map": torch.stack([_padded(cut.query_map, r) for cut in cuts]).to(like)}
    keys = [cut.key_map for cut in cuts if cut.key_map is not None]
    if keys:
        return changed | {"key_map": torch.stack([_padded(key, r) for key in keys]).to(like)}
    # A head that keeps fewer than r does not read the rest of its r channels.
    channels = torch.cat([head * n + torch.tensor(cut.channels[:r]) for head, cut in enumerate(cuts)]).to(like.device)
    queries = config.heads * n
    every = torch.arange(len(like), device=like.device)
    rows = torch.cat([every[:queries], queries + channels, every[2 * queries :]])
    changed |= {name: weights[name][rows] for name in ("projection.weight", "convolution.weight")}
    # Rows by head and channel, (H n, …), or numbers by both, (H, n).
    changed |= {name: weights[name][channels] for name in ("decay.weight", "decay.bias") if name in weights}
    by_head = [name for name in ("decay_bias", "log_rate") if name in weights]
    changed |= {name: weights[name].flatten()[channels].view(-1, r) for name in by_head}
    return changed


def _s6_weights(weights: Weights, cuts: Sequence[StateCut], config: ModelConfig) -> dict[str, Tensor]:
    """What changes of the weights of a layer of S6, whose channels all keep the same states."""
    (cut,) = cuts
    kept_channels = list(cut.channels[: cut.query_map.shape[1]])
    B, C = torch.split(weights["state_projection.weight"], config.key_size)
    return {
        "state_projection.weight": torch.cat([B[kept_channels], C]),
        "log_rate": weights["log_rate"][:, kept_channels],
        "read_map": cut.query_map.to(C),
    }


def _delta_weights(weights: Weights, cuts: Sequence[StateCut], config: ModelConfig) -> dict[str, Tensor]:
    """What is new of a layer of a delta rule: queries and keys are mapped alike."""
    del config
    r = max(cut.query_map.shape[1] for cut in cuts)
    return {"basis": torch.stack([_padded(cut.query_map, r) for cut in cuts]).to(weights["projection.weight"])}


def _padded(part: Tensor, columns: int) -> Tensor:
    return torch.nn.functional.pad(part, (0, columns - part.shape[1]))


_CHANGES = {"s6": _s6_weights, "deltanet": _delta_weights, "gated-deltanet": _delta_weights}
