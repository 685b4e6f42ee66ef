"""One layer of published models, at full width with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

_VOCABULARY = 1024
# Beyond the tokens that models reserve for the beginning, the end and padding.
_FIRST_TOKEN = 8

_TINY: dict[str, dict[str, Any]] = {
    "falcon_mamba": {"hidden_size": 32, "intermediate_size": 64, "time_step_rank": 4},
    "llama_3": {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2},
    "mamba_2": {"hidden_size": 32, "num_heads": 8, "head_dim": 8, "state_size": 32},
    "qwen3_next": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 16,
    },
}


@dataclass(frozen=True)
class ModelCase:
    """A model with one layer, and what its mixer is asked."""

    name: str  # as `--case` takes it
    model: str  # the published model of that shape
    model_type: str  # its family in transformers
    shape: dict[str, Any]  # its configuration, apart from the number of layers and the vocabulary, which no mixer sees
    layers: int  # layers of this kind in the whole model

    def make(self) -> nn.Module:
        """The model with weights at the initialisation that was published with it, from a fixed seed."""
        from transformers import AutoConfig, AutoModel

        given = {"vocab_size": _VOCABULARY, "num_hidden_layers": 1, "pad_token_id": None, **self.shape}
        config = AutoConfig.for_model(self.model_type, **given)  # pyright: ignore[reportUnknownMemberType]
        with torch.random.fork_rng([]):  # pyright: ignore[reportUnknownMemberType]
            torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]
            model = cast("nn.Module", AutoModel.from_config(config))
            if "mamba" in self.model_type:
                _as_published(model)
        return model.eval()


def _as_published(model: nn.Module) -> None:
    """What transformers draws otherwise than Mamba's own code does."""
    # Its projections are some ten times larger, and its A of Mamba-2 goes up to the number of heads; nearly all would
    # be forgotten within a few tokens.
    for name, module in cast("Iterator[tuple[str, nn.Module]]", model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(("in_proj", "x_proj")):
            module.reset_parameters()
        if type(module).__name__ == "Mamba2Mixer":
            nn.init.uniform_(cast("nn.Parameter", module.A_log), 1, 16).data.log_()


def random_tokens(length: int) -> torch.Tensor:
    """One sequence of tokens, (1, L) int64, from a fixed seed."""
    return torch.randint(_FIRST_TOKEN, _VOCABULARY, (1, length), generator=torch.Generator().manual_seed(0))


def model_cases(quick: bool) -> tuple[ModelCase, ...]:
    """All cases, in the order of the table."""
    # Softmax attention is asked bounds of relative counts: their threshold differs between positions, while what
    # makes matrices of full rank fast is shared among positions.
    full = (
        ModelCase(
            "falcon_mamba",
            "Falcon-Mamba-7B",
            "falcon_mamba",
            {"hidden_size": 4096, "intermediate_size": 8192, "state_size": 16, "time_step_rank": 256},
            layers=64,
        ),
        ModelCase(
            "llama_3",
            "Llama-3-8B",
            "llama",
            {
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "max_position_embeddings": 8192,
                "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            },
            layers=32,
        ),
        ModelCase(
            "mamba_2",
            "Mamba-2-2.7B",
            "mamba2",
            {"hidden_size": 2560, "num_heads": 80, "head_dim": 64, "state_size": 128, "n_groups": 1},
            layers=64,
        ),
        ModelCase(
            "qwen3_next",
            "Qwen3-Next-80B-A3B, gated delta rule",
            "qwen3_next",
            # A dense feed-forward part instead of 512 experts, which hold 6 GB and mix no positions.
            {"hidden_size": 2048, "layer_types": ["linear_attention"], "mlp_only_layers": [0]},
            layers=36,
        ),
    )
    if not quick:
        return full
    return tuple(replace(case, shape=case.shape | _TINY[case.name]) for case in full)
