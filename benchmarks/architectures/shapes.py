"""The architectures that are compared: one size, one depth, and the mixer of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn

from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel

VOCABULARY = 1024
WIDTH = 128
LAYERS = 4
HEADS = 4
WINDOW = 32
"""Tokens that sliding-window attention sees."""


@dataclass(frozen=True)
class Architecture:
    """A family, and its model of random weights."""

    name: str
    source: str
    build: Callable[[], nn.Module]

    @property
    def folder(self) -> str:
        """Name of the folder of its model."""
        return re.split(r" \(|,", self.name)[0].replace(" ", "-").lower()


def _pretrained(family: str, **special: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        common = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS}
        # The default of 0.02 suits widths of thousands.
        common |= {"tie_word_embeddings": True, "initializer_range": WIDTH**-0.5}
        config = transformers.AutoConfig.for_model(family, **common | special)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            from_config = cast("Any", transformers.AutoModelForCausalLM).from_config
            model = cast("nn.Module", from_config(config, attn_implementation="eager"))
            for name, parameter in model.named_parameters():
                if family == "qwen3_next" and name.endswith("dt_bias"):
                    _spread_steps(parameter)
            return model

    return build


@torch.no_grad()
def _spread_steps(bias: Tensor) -> None:
    """Step sizes between 0.001 and 0.1, as Mamba-2 starts; transformers has 1.3, with which no state lasts a token."""
    steps = 10 ** torch.empty_like(bias).uniform_(-3, -1)
    bias.copy_(steps.expm1().log())


def _own(mixer: str, **special: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        config = ModelConfig(mixer, VOCABULARY, WIDTH, HEADS, LAYERS, **special)
        return LanguageModel(config, torch.Generator().manual_seed(0))

    return build


_ATTENTION: dict[str, Any] = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "intermediate_size": 400}
_DELTA: dict[str, Any] = {
    **{"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": 32, "intermediate_size": 352},
    **{"linear_num_key_heads": HEADS, "linear_num_value_heads": HEADS},
    **{"linear_key_head_dim": 32, "linear_value_head_dim": 32, "num_experts": 0},
    "mlp_only_layers": list(range(LAYERS)),
}
_DELTAS = ["linear_attention"] * LAYERS

ARCHITECTURES = (
    Architecture("softmax attention", "Llama", _pretrained("llama", **_ATTENTION)),
    Architecture(
        "grouped queries (GQA)",
        "Llama, a key-value head for two query heads",
        _pretrained("llama", **_ATTENTION | {"num_key_value_heads": 2, "intermediate_size": 440}),
    ),
    Architecture(
        "sliding window", f"Mistral, window of {WINDOW}", _pretrained("mistral", **_ATTENTION, sliding_window=WINDOW)
    ),
    Architecture("linear attention", "`la` of statesize", _own("la")),
    Architecture("gated linear attention (GLA)", "`gla` of statesize", _own("gla")),
    Architecture("gated delta rule", "Qwen3-Next", _pretrained("qwen3_next", **_DELTA, layer_types=_DELTAS)),
    Architecture("Mamba", "Mamba", _pretrained("mamba", state_size=16, num_hidden_layers=8)),
    Architecture(
        "Mamba-2",
        "Mamba-2",
        _pretrained(
            "mamba2", state_size=32, head_dim=64, num_heads=HEADS, n_groups=1, num_hidden_layers=8, chunk_size=32
        ),
    ),
    Architecture(
        "hybrid, one layer of attention in four",
        "Qwen3-Next",
        _pretrained("qwen3_next", **_DELTA, layer_types=[*_DELTAS[:-1], "full_attention"]),
    ),
)
