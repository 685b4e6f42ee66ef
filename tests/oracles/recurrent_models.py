"""Small random models of every family with a recurrence or a short convolution, and what is observed in them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import ModuleStack, Observation
from statesize.adapters.replaced import source_files
from statesize.adapters.sources import Source

_ANY = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": None}
_HEADS = {**_ANY, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
_MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 2, "mamba_chunk_size": 8}
_EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
_DELTA = {
    "num_hidden_layers": 4,
    "head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
}
_LATENT = {
    "num_key_value_heads": 4,
    "head_dim": 8,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
}

# For each model type, its configuration and what is observed in it: kind and number.
FAMILIES: dict[str, tuple[dict[str, Any], tuple[str, int]]] = {
    "mamba": ({**_ANY, "state_size": 8}, ("mamba", 2)),
    "falcon_mamba": ({**_ANY, "state_size": 8}, ("mamba", 2)),
    "jamba": (
        {**_HEADS, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 8},
        ("mamba", 1),
    ),
    "zamba": (
        {
            **_HEADS,
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "layer_types": ["linear_attention", "hybrid"] * 2,
            "mamba_d_state": 8,
            "n_mamba_heads": 2,
            "mamba_dt_rank": 4,
        },
        ("mamba", 8),
    ),
    "mamba2": (
        {**_ANY, "state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 2, "expand": 2, "chunk_size": 8},
        ("mamba2", 2),
    ),
    "bamba": ({**_HEADS, **_MAMBA2, "attn_layer_indices": [1]}, ("mamba2", 1)),
    "zamba2": (
        {
            **_HEADS,
            "num_key_value_heads": 4,
            "mamba_d_state": 8,
            "n_mamba_heads": 8,
            "mamba_headdim": 8,
            "mamba_ngroups": 1,
            "chunk_size": 8,
            "layers_block_type": ["linear_attention", "hybrid"],
            "num_mem_blocks": 1,
        },
        ("mamba2", 2),
    ),
    "falcon_h1": ({**_HEADS, **_MAMBA2, "head_dim": 8, "mamba_d_ssm": 64}, ("mamba2", 2)),
    "granitemoehybrid": (
        {
            **_HEADS,
            **_MAMBA2,
            "layer_types": ["mamba", "attention"],
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "shared_intermediate_size": 32,
        },
        ("mamba2", 1),
    ),
    "nemotron_h": (
        {
            **_HEADS,
            "head_dim": 8,
            "hybrid_override_pattern": "M*",
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 2,
            "chunk_size": 8,
        },
        ("mamba2", 1),
    ),
    "qwen3_next": ({**_HEADS, **_DELTA, **_EXPERTS, "shared_expert_intermediate_size": 16}, ("gated delta rule", 3)),
    "qwen3_5_text": ({**_HEADS, **_DELTA}, ("gated delta rule", 3)),
    "qwen3_5_moe_text": (
        {**_HEADS, **_DELTA, **_EXPERTS, "shared_expert_intermediate_size": 16},
        ("gated delta rule", 3),
    ),
    "olmo_hybrid": ({**_HEADS, **_DELTA, "linear_num_key_heads": 4}, ("gated delta rule", 3)),
    "kimi_linear": (
        {
            **_HEADS,
            **_LATENT,
            **_EXPERTS,
            "num_local_experts": 2,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_heads": 4,
            "linear_head_dim": 8,
        },
        ("kimi delta attention", 1),
    ),
    "bailing_hybrid": ({**_HEADS, **_LATENT, **_EXPERTS, "layer_group_size": 2}, ("kimi delta attention", 1)),
    "rwkv": ({"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}, ("rwkv", 2)),
    "recurrent_gemma": (
        {
            **_HEADS,
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "attention_window_size": 7,
            "lru_width": 32,
        },
        ("rg-lru", 2),
    ),
    "minimax": (
        {
            **_HEADS,
            "head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "block_size": 8,
        },
        ("lightning attention", 1),
    ),
    "xlstm": ({**_ANY, "num_heads": 4, "chunk_size": 8}, ("mlstm", 2)),
    "lfm2": (
        {**_HEADS, "layer_types": ["conv", "full_attention"], "block_ff_dim": 48, "block_multiple_of": 8},
        ("short convolution", 1),
    ),
    "lfm2_moe": ({**_HEADS, **_EXPERTS, "layer_types": ["conv", "full_attention"]}, ("short convolution", 1)),
    "lfm3": ({**_HEADS, "layer_types": ["conv", "full_attention"]}, ("short convolution", 1)),
}


def tiny_model(family: str, seed: int = 0) -> nn.Module:
    """A small random causal model of a family, in eval mode; skips the test where transformers lacks the family."""
    if family not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    config = transformers.AutoConfig.for_model(family, **FAMILIES[family][0])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, experts_implementation="eager").eval()
        # Livelier than at initialisation, where decays and gates are all alike.
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "A_log" not in name:
                nn.init.normal_(parameter, std=0.3)
    return model


def tokens(length: int = 21, sequences: int = 2) -> Tensor:
    """Random token ids, (sequences, length)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, 64, (sequences, length), generator=generator)


@torch.no_grad()
def observations(model: nn.Module, ids: Tensor, *sources: Source) -> list[Observation]:
    """What some sources observe in one forward pass."""
    seen: list[Observation] = []
    with ExitStack() as stack:
        running = stack.enter_context(ModuleStack(named_parts(model), 21).watching())
        for source in sources:
            stack.enter_context(
                source(source_files(named_parts(model)), running, lambda make, product=None: seen.append(make()))
            )
        model(input_ids=ids, use_cache=False)
    return seen


@torch.no_grad()
def reproduction_error(observation: Observation) -> float:
    """The largest difference of what T u becomes from what the model passed on, relative to the largest entry."""
    every = slice(None)
    mixed = observation.operator(every).apply(observation.values.double())
    difference = observation.passed_on(mixed, every) - observation.mixed
    return float(difference.abs().max() / observation.mixed.abs().max())


class InDouble(TorchFunctionMode):
    """Runs a double-precision model in double precision where its code asks for float32."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.float:
            return args[0].double()
        kwargs = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return function(*(torch.float64 if value is torch.float32 else value for value in args), **kwargs)
