"""Small random transformers models of the attention families."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

WORDS = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
WIDE = WORDS | {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = WIDE | {"num_key_value_heads": 2}
HEADS = GROUPED | {"head_dim": 8}
OLD = WORDS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
NEO = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}

# The configurations, and the window of each layer.
FAMILIES: dict[str, tuple[dict[str, object], tuple[int | None, int | None]]] = {
    "gpt2": (OLD, (None, None)),
    "gpt_neox": (WIDE, (None, None)),
    "llama": (GROUPED, (None, None)),
    "mistral": (GROUPED | {"sliding_window": 7}, (7, 7)),
    "qwen2": (GROUPED, (None, None)),
    "qwen3": (HEADS, (None, None)),
    "phi": (WIDE, (None, None)),
    "phi3": (GROUPED, (None, None)),
    "gemma": (HEADS, (None, None)),
    # On transformers 5.15 fused attention leaves out gemma2's soft cap.
    "gemma2": (HEADS | {"sliding_window": 7, "attn_implementation": "eager"}, (7, None)),
    "gemma3_text": (HEADS | {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]}, (7, None)),
    "gpt_oss": (HEADS | EXPERTS | {"sliding_window": 8}, (8, None)),
    "opt": (WIDE | {"ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": 32}, (None, None)),
    "olmo2": (GROUPED, (None, None)),
    "deepseek_v3": (WIDE | {"num_key_value_heads": 4} | LATENT | ROUTED | {"moe_intermediate_size": 16}, (None, None)),
    "minimax_m2": (HEADS | EXPERTS, (None, None)),
    # Those without transformers' registry of attention functions.
    "bloom": (WORDS | {"hidden_size": 32, "n_layer": 2, "n_head": 4}, (None, None)),
    "falcon": (WIDE, (None, None)),
    "gptj": (OLD | {"rotary_dim": 4}, (None, None)),
    "mpt": (WORDS | {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}, (None, None)),
    "gpt_neo": (WORDS | NEO | {"attention_types": [[["global", "local"], 1]], "window_size": 6}, (None, 6)),
    "codegen": (OLD | {"rotary_dim": 4}, (None, None)),
}


def attention_model(family: str, **changes: object) -> nn.Module:
    """A model of two layers with weights large enough for attention to be far from uniform."""
    torch.manual_seed(0)
    options = {**FAMILIES[family][0], **changes}
    implementation = options.pop("attn_implementation", None)
    config = AutoConfig.for_model(family, **options)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model


def token_ids(sequences: int = 2, length: int = 21) -> Tensor:
    return torch.randint(1, 64, (sequences, length), generator=torch.Generator().manual_seed(1))
