"""Layers of flash-linear-attention (fla) by the names of mixers: "fla:gated_deltanet"."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

from torch import Tensor, nn

from statesize.errors import InputError
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.fla.torch_forms import prepare, run_in_torch

CHUNK_SIZE = 32


class FlaMixer(nn.Module):
    """A layer of fla with the shape of a model; capture observes its kernel, and its weights start as fla sets them.

    Args:
        config: Shape of the model; `width`, `heads`, `key_size` and `convolution_size` are used.
        name: A key of `FLA_LAYERS`.
    """

    compiles: ClassVar[bool] = False

    def __init__(self, config: ModelConfig, name: str) -> None:
        super().__init__()
        kind, settings = FLA_LAYERS[name]
        options = settings(config)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                prepare()
                self.layer: nn.Module = getattr(import_module("fla.layers"), kind)(**options)
            run_in_torch(self.layer)
            if name == "fla:mamba2":
                # Its own is a kernel of fla.
                self.layer.act = nn.SiLU()
        except ImportError as error:
            raise InputError(
                f"mixer must be there to be trained, got {name!r}, a layer of flash-linear-attention, which cannot be "
                f"imported ({error}). Install it: pip install 'statesize[fla]'."
            ) from error

    def forward(self, hidden: Tensor) -> Tensor:
        """Mixes whole sequences, (S, L, d)."""
        return self.layer(hidden)[0]


def _delta_net(config: ModelConfig) -> dict[str, Any]:
    return {**_shape(config), "expand_k": config.key_size * config.heads / config.width, "expand_v": 1}


def _gated_deltanet(config: ModelConfig) -> dict[str, Any]:
    return {**_shape(config), "head_dim": config.key_size, "expand_v": config.value_size / config.key_size}


def _shape(config: ModelConfig) -> dict[str, Any]:
    convolution = config.convolution_size
    return {
        "hidden_size": config.width,
        "num_heads": config.heads,
        "use_short_conv": convolution > 1,
        "conv_size": convolution,
    }


def _rwkv7(config: ModelConfig) -> dict[str, Any]:
    if config.key_size != config.value_size:
        raise InputError(
            f"key_size must be width / heads = {config.value_size} for 'fla:rwkv7', got {config.key_size}. Its keys "
            "have as many dimensions as its values."
        )
    # As the first layer of a model, which takes no values of an earlier one.
    return {
        "hidden_size": config.width,
        "head_dim": config.key_size,
        "layer_idx": 0,
        "num_hidden_layers": max(2, config.layers),
    }


def _mamba2(config: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "num_heads": config.heads,
        "head_dim": 2 * config.value_size,
        "state_size": config.key_size,
        "conv_kernel": config.convolution_size,
        "chunk_size": CHUNK_SIZE,
        "backend": "triton",
    }


FLA_LAYERS: dict[str, tuple[str, Callable[[ModelConfig], dict[str, Any]]]] = {
    "fla:delta_net": ("DeltaNet", _delta_net),
    "fla:gated_deltanet": ("GatedDeltaNet", _gated_deltanet),
    "fla:rwkv7": ("RWKV7Attention", _rwkv7),
    "fla:mamba2": ("Mamba2", _mamba2),
}
"""By the name of a mixer: the class in `fla.layers`, and what it is made with."""
