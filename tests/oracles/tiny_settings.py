"""Settings of the tiny models of tests/oracles/tiny_families.py: what all share and what each needs besides."""

from __future__ import annotations

from typing import Any

_WIDTH = ("hidden_size", "embed_dim", "d_model", "n_embd", "emb_dim", "embedding_size", "word_embed_proj_dim")
_LAYERS = ("depth", "encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers", "num_blocks")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
_HEADS += ("encoder_attention_heads", "decoder_attention_heads")
_HEADS += ("num_encoder_attention_heads", "num_decoder_attention_heads")
_HEAD = ("head_dim", "kv_channels", "dim_head", "d_head", "attention_head_size", "index_head_dim", "d_kv")
_INNER = ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner", "dim_ff", "dff", "d_inner")
_INNER += ("ffn_hidden_size", "feed_forward_size", "intermediate_size_mlp", "dense_intermediate_size")
_EXPERT = ("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size")
_EXPERT += ("expert_ffn_hidden_size", "moe_shared_expert_intermediate_size", "shared_experts_intermediate_size")
_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
_ACTIVE = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
_ONE = ("num_key_value_heads", "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "n_group")
_ONE += ("topk_group", "num_expert_group", "first_k_dense_replace", "num_dense_layers")
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "model_max_length", "context_length")
_POSITIONS += ("max_target_positions",)
_WINDOW = ("sliding_window", "window_size", "attention_window_size", "sliding_window_size", "keep_window_size")
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id")

# Fields that list the kinds of layers: each kind that the default configuration has comes once.
PATTERNS = ("layer_types", "layers_block_type", "mlp_layer_types", "indexer_types")

COMMON: dict[str, Any] = {
    "vocab_size": 64,
    "n_vocab": 64,
    **dict.fromkeys(_WIDTH, 24),
    **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys(_HEADS, 3),
    **dict.fromkeys(_HEAD, 8),
    **dict.fromkeys(_INNER, 40),
    **dict.fromkeys(_EXPERT, 16),
    **dict.fromkeys(_EXPERTS, 4),
    **dict.fromkeys(_ACTIVE, 2),
    **dict.fromkeys(_ONE, 1),
    **dict.fromkeys(_POSITIONS, 64),
    **dict.fromkeys(_WINDOW, 7),
    "q_lora_rank": 10,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 5,
    "index_topk": 8,
    "index_n_heads": 3,
    "attention_chunk_size": 5,
    "local_attention": 14,
    "floor_scale": 4,
    "query_pre_attn_scalar": 5,
    "attention_multiplier": 0.3,
    "original_max_position_embeddings": 64,
    "mlp_only_layers": [0],
    "decoder_sparse_step": 1,
    "rotary_dim": 4,
    "linear_num_value_heads": 6,
    "linear_num_key_heads": 3,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
    "linear_num_heads": 3,
    "linear_head_dim": 8,
    "mamba_d_state": 8,
    "state_size": 8,
    "ssm_state_size": 8,
    "mamba_n_heads": 6,
    "mamba_d_head": 8,
    "mamba_n_groups": 3,
    "mamba_d_ssm": 48,
    "mamba_dt_rank": 3,
    "time_step_rank": 3,
    "mamba_chunk_size": 8,
    "chunk_size": 8,
    "block_size": 8,
    "is_decoder": True,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
}

_BOTH = ["full_attention", "sliding_attention"]
_PADDED = {"pad_token_id": 1}
_CHUNKED = {"no_rope_layers": [1, 0], "interleave_moe_layer_step": 2}
_SHARED = {
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 64,
}
_GEMMA3N = _SHARED | {"activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0], "laurel_rank": 4}
_GEMMA4 = _SHARED | {"enable_moe_block": True, "global_head_dim": 12}
# The other variant: full attention with keys for values, and a key of its own for each head.
_KEYS_ARE_VALUES = {
    "layer_types": ["sliding_attention", "full_attention"],
    "attention_k_eq_v": True,
    "global_head_dim": 12,
    "num_global_key_value_heads": 3,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
}
# Models that predict further tokens from the hidden states and keys of another, whose text model is of this type.
ASSISTANTS = {"gemma4_assistant": "gemma4_text", "gemma4_unified_assistant": "gemma4_unified_text"}
ASSISTANT = _KEYS_ARE_VALUES | {"attention_k_eq_v": False}
_INDEXED = {
    "indexer_n_heads": 3,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 6,
    "indexer_compress_ratio": 3,
    "hc_lowrank": 6,
    "ple_layer_ids": [1],
    "ple_embed_dim": 8,
    "ngram_size": 3,
    "heads_per_ngram": 2,
    "ngram_vocab_size_base": 50,
    "make_ngram_vocab_size_divisible_by": 4,
    "split_ngram_parts": 1,
    "eos_token_id": 2,
}
_NOTE = {
    "layer_types": ["indexed_attention", "sliding_attention"],
    "head_dim": 10,
    "swa_num_attention_heads": 5,
    "swa_num_key_value_heads": 5,
    "swa_q_lora_rank": 6,
    "swa_kv_lora_rank": 7,
    "swa_head_dim": 12,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 9,
}
_INKLING = {
    "swa_num_attention_heads": 5,
    "swa_num_key_value_heads": 1,
    "swa_head_dim": 8,
    "d_rel": 4,
    "rel_extent": 11,
    "log_scaling_n_floor": 5,
    "unpadded_vocab_size": 64,
}
_MUSIC = {"num_codebooks": 1}

SPECIAL: dict[str, dict[str, Any]] = {
    "doge": {"sliding_window": None},  # its mask keeps the keys of largest weight
    "bailing_hybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "bamba": {"attn_layer_indices": [1]},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "blt": {
        "local_attention_window_len": 7,
        "patching_threshold": 3.7,  # bytes of higher entropy start patches: about half of them
        "encoder_hash_byte_group_vocab": 50,
        "encoder_hash_byte_group_size": [3, 4],
        "encoder_config": {"hidden_size_global": 48, "cross_attn_k": 2},
        "decoder_config": {"hidden_size_global": 48, "cross_attn_k": 2},
        "global_config": {"hidden_size": 48},
    },
    "camembert": _PADDED,
    "codegen": {"n_head": 4},  # its projection is laid out for four devices
    "cohere2_moe": {"mlp_layer_types": ["dense", "sparse"]},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
            for kind in ("sliding_attention", "full_attention")
        },
    },
    "cpmant": {"prompt_length": 5, "position_bias_num_buckets": 8, "position_bias_max_distance": 16},
    "data2vec-text": _PADDED,
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 2.0}},  # without either it does not run
    "deepseek_v4": {
        "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
        "mlp_layer_types": ["hash_moe", "moe", "moe"],
        "compress_rates": {"compressed_sparse_attention": 3, "heavily_compressed_attention": 5},
        "index_topk": 3,
        "partial_rotary_factor": 0.5,
        "o_groups": 3,
        "o_lora_rank": 6,
        "hc_mult": 2,
    },
    "diffllama": {"num_attention_heads": 6, "num_key_value_heads": 2},  # values are split between two softmaxes
    "dots1": {"layer_types": _BOTH},
    "dots3_note": {"text_config": _NOTE},
    "dots3_note_text": _NOTE,
    "falcon": {"num_kv_heads": 1},
    "gemma2": {"attn_logit_softcapping": 2.0},
    "gemma3n": {"text_config": _GEMMA3N},
    "gemma3n_text": _GEMMA3N,
    "gemma4": {"text_config": _KEYS_ARE_VALUES | _PADDED},
    "gemma4_text": _GEMMA4,
    "gemma4_unified": {"text_config": _KEYS_ARE_VALUES | _PADDED},
    "gemma4_unified_text": _SHARED | {"global_head_dim": 12},
    "glm_moe_dsa": {"indexer_types": ["full", "shared"]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hrm_text": {"num_hidden_layers": 1, "H_cycles": 2, "L_cycles": 2},
    "inkling2_text": _INKLING | {"n_layers_per_attn_res_block": 1},
    "inkling_text": _INKLING | {"mlp_layer_types": ["dense", "sparse"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "laguna": {"layer_types": _BOTH, "num_attention_heads_per_layer": [3, 5]},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "llama4": {"text_config": _CHUNKED},
    "llama4_text": _CHUNKED,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"head_dim": 4, "zero_expert_num": 2},
    "mamba2": {"num_heads": 6, "n_groups": 3},
    "mellum": {"layer_types": _BOTH, "mlp_layer_types": ["dense", "sparse"]},
    "mimo_v2_flash": {"num_attention_heads": 6},  # layers with a window have twice the keys
    "minicpm3": {"dim_model_base": 12},
    "minimax_m3_vl_text": {
        "layer_types": ["full_attention", "minimax_m3_sparse"],
        "mlp_layer_types": ["dense", "sparse"],
        "num_attention_heads": 6,
        "num_key_value_heads": 3,  # one for each head of the indexer
        "index_block_size": 4,
        "index_topk_blocks": 2,
    },
    "ministral": {"layer_types": _BOTH},
    "mllama": {"text_config": {"num_hidden_layers": 3, "cross_attention_layers": [1]}},
    "mpt": {"attn_config": {}},
    "musicgen": {"decoder": _MUSIC},
    "musicgen_melody": {"decoder": _MUSIC},
    "nemotron_h": {"mamba_num_heads": 6, "mamba_head_dim": 8, "n_groups": 3},
    "prophetnet": _PADDED,
    "qwen2": {"layer_types": _BOTH, "use_sliding_window": True},
    "qwen2_moe": {"layer_types": _BOTH, "use_sliding_window": True},
    "qwen3": {"layer_types": _BOTH, "use_sliding_window": True},
    "qwen3_moe": {"use_sliding_window": True},
    "qwen4_exp": {"text_config": _INDEXED},
    "qwen4_exp_text": _INDEXED,
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 24},
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [8, 16],
        "local_attn_chunk_length": 5,
        "lsh_attn_chunk_length": 5,
        "num_buckets": 4,
        "hash_seed": 0,
        "pad_token_id": 1,
    },
    "rembert": {"input_embedding_size": 12, "output_embedding_size": 20},
    "roberta": _PADDED,
    "roberta-prelayernorm": _PADDED,
    "roc_bert": {
        "pronunciation_vocab_size": 64,
        "shape_vocab_size": 64,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 5,
    },
    "rwkv": {"attention_hidden_size": 24},
    "smollm3": {"layer_types": _BOTH, "use_sliding_window": True, "no_rope_layers": [1, 0]},
    "vaultgemma": {"attn_logit_softcapping": 2.0},
    "xlm": {"pad_token_id": 1, "causal": True},
    "xlm-roberta": _PADDED,
    "xlm-roberta-xl": _PADDED,
    "xlnet": {"attn_type": "uni"},
    "xmod": {"default_language": "en_XX"} | _PADDED,
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "attention_hidden_size": 48},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "mamba_headdim": 8, "n_mamba_heads": 6},
    "zaya": {"layer_types": ["hybrid", "hybrid_sliding"], "num_experts_per_tok": 1, "router_hidden_size": 12},
}

# What makes a family causal that is not by its defaults.
CAUSAL_WITH = {"xlnet": 'attn_type="uni"', "xlm": "causal=True"}

# Families whose weights are drawn that much larger: nothing brings their embeddings, or their keys, to a scale of one.
LOUDER = {"inkling2_text": 1.4, "marian": 2.5, "openai-gpt": 1.9, "MistralLarge4": 2.0, "OpenAIGPT": 1.9}
