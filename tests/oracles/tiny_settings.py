"""Settings of the tiny models of tests/oracles/tiny_families.py: what all share and what each needs besides."""

from __future__ import annotations

from typing import Any

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id")
# Fields that list the kinds of layers: each kind that the default configuration has comes once.
PATTERNS = ("layer_types", "layers_block_type", "mlp_layer_types", "indexer_types")

# Numbers, and the fields that have them.
_NUMBERS: tuple[tuple[float, str], ...] = (
    (
        64,
        "vocab_size n_vocab original_max_position_embeddings max_position_embeddings max_target_positions n_positions",
    ),
    (64, "n_ctx max_seq_len model_max_length context_length"),
    (24, "hidden_size embed_dim d_model n_embd emb_dim embedding_size word_embed_proj_dim"),
    (2, "depth encoder_layers decoder_layers num_encoder_layers num_decoder_layers num_blocks"),
    (3, "num_attention_heads n_head n_heads num_heads attention_heads encoder_attention_heads decoder_attention_heads"),
    (3, "num_encoder_attention_heads num_decoder_attention_heads index_n_heads linear_num_key_heads linear_num_heads"),
    (8, "head_dim kv_channels dim_head d_head attention_head_size index_head_dim d_kv linear_key_head_dim"),
    (8, "linear_head_dim mamba_d_head"),
    (40, "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim n_inner dim_ff dff d_inner ffn_hidden_size"),
    (40, "feed_forward_size intermediate_size_mlp dense_intermediate_size"),
    (16, "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size"),
    (16, "moe_shared_expert_intermediate_size shared_experts_intermediate_size"),
    (4, "n_routed_experts num_experts num_local_experts moe_num_experts"),
    (2, "num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts"),
    (1, "num_key_value_heads n_shared_experts num_shared_experts moe_num_shared_experts n_group topk_group"),
    (1, "num_expert_group first_k_dense_replace num_dense_layers decoder_sparse_step"),
    (7, "sliding_window window_size attention_window_size sliding_window_size keep_window_size"),
    (8, "kv_lora_rank index_topk mamba_d_state state_size ssm_state_size mamba_chunk_size chunk_size block_size"),
    (3, "mamba_n_groups mamba_dt_rank time_step_rank"),
    (4, "qk_rope_head_dim floor_scale rotary_dim"),
    (5, "v_head_dim attention_chunk_size query_pre_attn_scalar"),
    (6, "qk_nope_head_dim linear_num_value_heads linear_value_head_dim mamba_n_heads"),
    (10, "q_lora_rank"),
    (14, "local_attention"),
    (48, "mamba_d_ssm"),
    (0.3, "attention_multiplier"),
)
COMMON: dict[str, Any] = {name: number for number, names in _NUMBERS for name in names.split()}
COMMON |= {"mlp_only_layers": [0], "is_decoder": True, "is_encoder_decoder": False, "add_cross_attention": False}

_BOTH = {"layer_types": ["full_attention", "sliding_attention"]}
_WINDOWED = _BOTH | {"use_sliding_window": True}
_SPARSE = {"mlp_layer_types": ["dense", "sparse"]}
_PADDED = {"pad_token_id": 1}
_PARTS = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 64}
_SHARED = _PARTS | {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2}
# Full attention with a key of its own for each head, and the same with keys for values.
ASSISTANT = {"layer_types": ["sliding_attention", "full_attention"], "attention_k_eq_v": False, "global_head_dim": 12}
ASSISTANT |= {"num_global_key_value_heads": 3} | dict.fromkeys(_PARTS, 0)
_KEYS_ARE_VALUES = {"text_config": ASSISTANT | _PADDED | {"attention_k_eq_v": True}}
# Models that predict further tokens from the hidden states and keys of another, whose text model is of this type.
ASSISTANTS = {"gemma4_assistant": "gemma4_text", "gemma4_unified_assistant": "gemma4_unified_text"}
_INKLING = {"swa_num_attention_heads": 5, "swa_num_key_value_heads": 1, "swa_head_dim": 8, "d_rel": 4}
_INKLING |= {"rel_extent": 11, "log_scaling_n_floor": 5, "unpadded_vocab_size": 64}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
_HYBRID = {"layers_block_type": ["linear_attention", "hybrid"] * 2}

SPECIAL: dict[str, dict[str, Any]] = {
    "doge": {"sliding_window": None},  # its mask keeps the keys of largest weight
    "bailing_hybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "bamba": {"attn_layer_indices": [1]},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    # Bytes of higher entropy than the threshold start patches: about half of them.
    "blt": {"local_attention_window_len": 7, "patching_threshold": 3.7, "encoder_hash_byte_group_vocab": 50}
    | {"encoder_hash_byte_group_size": [3, 4], "global_config": {"hidden_size": 48}}
    | {part: {"hidden_size_global": 48, "cross_attn_k": 2} for part in ("encoder_config", "decoder_config")},
    "codegen": {"n_head": 4},  # its projection is laid out for four devices
    "cohere2_moe": _SPARSE,
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"]}
    | {"rope_parameters": dict.fromkeys(("sliding_attention", "full_attention"), ROPE)},
    "cpmant": {"prompt_length": 5, "position_bias_num_buckets": 8, "position_bias_max_distance": 16},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 2.0}},  # without either it does not run
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 3, "heavily_compressed_attention": 5}}
    | {"layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"]}
    | {"mlp_layer_types": ["hash_moe", "moe", "moe"], "index_topk": 3, "partial_rotary_factor": 0.5}
    | {"o_groups": 3, "o_lora_rank": 6, "hc_mult": 2},
    "diffllama": {"num_attention_heads": 6, "num_key_value_heads": 2},  # values are split between two softmaxes
    "dots1": _BOTH,
    "dots3_note_text": {"layer_types": ["indexed_attention", "sliding_attention"], "head_dim": 10, "swa_head_dim": 12}
    | {"swa_num_attention_heads": 5, "swa_num_key_value_heads": 5, "swa_q_lora_rank": 6, "swa_kv_lora_rank": 7}
    | {"swa_qk_nope_head_dim": 8, "swa_v_head_dim": 9},
    "falcon": {"num_kv_heads": 1},
    "gemma2": {"attn_logit_softcapping": 2.0},
    "gemma3n_text": _SHARED | {"activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0], "laurel_rank": 4},
    "gemma4": _KEYS_ARE_VALUES,
    "gemma4_text": _SHARED | {"enable_moe_block": True, "global_head_dim": 12},
    "gemma4_unified": _KEYS_ARE_VALUES,
    "gemma4_unified_text": _SHARED | {"global_head_dim": 12},
    "glm_moe_dsa": {"indexer_types": ["full", "shared"]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hrm_text": {"num_hidden_layers": 1, "H_cycles": 2, "L_cycles": 2},
    "inkling2_text": _INKLING | {"n_layers_per_attn_res_block": 1},
    "inkling_text": _INKLING | _SPARSE,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "laguna": _BOTH | {"num_attention_heads_per_layer": [3, 5]},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "llama4_text": {"no_rope_layers": [1, 0], "interleave_moe_layer_step": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"head_dim": 4, "zero_expert_num": 2},
    "mamba2": {"num_heads": 6, "n_groups": 3},
    "mellum": _BOTH | _SPARSE,
    "mimo_v2_flash": {"num_attention_heads": 6},  # layers with a window have twice the keys
    "minicpm3": {"dim_model_base": 12},
    # One key for each head of the indexer.
    "minimax_m3_vl_text": _SPARSE
    | {"layer_types": ["full_attention", "minimax_m3_sparse"], "num_attention_heads": 6, "num_key_value_heads": 3}
    | {"index_block_size": 4, "index_topk_blocks": 2},
    "ministral": _BOTH,
    "mllama": {"text_config": {"num_hidden_layers": 3, "cross_attention_layers": [1]}},
    "mpt": {"attn_config": {}},
    "musicgen": {"decoder": {"num_codebooks": 1}},
    "musicgen_melody": {"decoder": {"num_codebooks": 1}},
    "nemotron_h": {"mamba_num_heads": 6, "mamba_head_dim": 8, "n_groups": 3},
    "qwen3_moe": {"use_sliding_window": True},
    "qwen4_exp_text": {"indexer_n_heads": 3, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 6}
    | {"indexer_compress_ratio": 3, "hc_lowrank": 6, "ple_layer_ids": [1], "ple_embed_dim": 8, "ngram_size": 3}
    | {"heads_per_ngram": 2, "ngram_vocab_size_base": 50, "make_ngram_vocab_size_divisible_by": 4}
    | {"split_ngram_parts": 1, "eos_token_id": 2},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 24},
    "reformer": {"attn_layers": ["local", "lsh"], "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [8, 16]}
    | {"local_attn_chunk_length": 5, "lsh_attn_chunk_length": 5, "num_buckets": 4, "hash_seed": 0, "pad_token_id": 1},
    "rembert": {"input_embedding_size": 12, "output_embedding_size": 20},
    "roc_bert": {"pronunciation_vocab_size": 64, "pronunciation_embed_dim": 8}
    | {"shape_vocab_size": 64, "shape_embed_dim": 5},
    "rwkv": {"attention_hidden_size": 24},
    "smollm3": _WINDOWED | {"no_rope_layers": [1, 0]},
    "vaultgemma": {"attn_logit_softcapping": 2.0},
    "xlm": {"pad_token_id": 1, "causal": True},
    "xlnet": {"attn_type": "uni"},
    "xmod": {"default_language": "en_XX"} | _PADDED,
    "zamba": _HYBRID | {"attention_hidden_size": 48},
    "zamba2": _HYBRID | {"mamba_headdim": 8, "n_mamba_heads": 6},
    "zaya": {"layer_types": ["hybrid", "hybrid_sliding"], "num_experts_per_tok": 1, "router_hidden_size": 12},
}
SPECIAL |= dict.fromkeys(("qwen2", "qwen2_moe", "qwen3"), _WINDOWED)
SPECIAL |= dict.fromkeys(
    "camembert data2vec-text prophetnet roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl".split(), _PADDED
)
# The whole of which a family is the text model.
SPECIAL |= {
    whole: {"text_config": SPECIAL[f"{whole}_text"]} for whole in ("dots3_note", "gemma3n", "llama4", "qwen4_exp")
}

# What makes a family causal that is not by its defaults.
CAUSAL_WITH = {"xlnet": 'attn_type="uni"', "xlm": "causal=True"}

# Families whose weights are drawn that much larger: nothing brings their embeddings, or their keys, to a scale of one.
LOUDER = {"inkling2_text": 1.4, "marian": 2.5, "openai-gpt": 1.9, "MistralLarge4": 2.0, "OpenAIGPT": 1.9}
