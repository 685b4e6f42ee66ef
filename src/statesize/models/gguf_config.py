"""Configurations of GGUF files: what transformers leaves out or reads wrongly is set, and what is not known refused."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from statesize.models.gguf import gguf_header, gguf_tensor, unread

ARCHITECTURES = (
    *("llama", "qwen2", "qwen3", "qwen2moe", "qwen3moe", "qwen35", "qwen35moe", "gemma2", "gemma3", "phi3"),
    *("starcoder2", "stablelm", "nemotron", "gpt2", "lfm2", "mamba"),
)
# Keys behind the name of the architecture, each with the setting of transformers that it states: the first that the
# configuration of the architecture has. Others state the setting of their own name, where there is one.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "context_length": ("max_position_embeddings",),
    "block_count": ("num_hidden_layers",),
    "embedding_length": ("hidden_size",),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads", "num_attention_heads"),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_epsilon"),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"),
    "expert_count": ("num_experts",),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
    "ssm.conv_kernel": ("conv_kernel",),
    "ssm.state_size": ("state_size",),
    "ssm.time_step_rank": ("time_step_rank",),
    "shortconv.l_cache": ("conv_L_cache",),
}
_WINDOW = {"attention.sliding_window": ("sliding_window",)}
_OF_QWEN35: dict[str, tuple[str, ...]] = dict.fromkeys(
    (
        *("rope.dimension_sections", "full_attention_interval", "nextn_predict_layers", "ssm.conv_kernel"),
        *("ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "ssm.inner_size"),
    ),
    (),
)
# Keys of one architecture; those without a setting are read by transformers in a way of its own, and rightly.
_OF_ARCHITECTURE: dict[str, dict[str, tuple[str, ...]]] = {
    "gemma2": _WINDOW,
    "gemma3": _WINDOW | {"attention.sliding_window_pattern": ("layer_types",), "rope.freq_base_swa": ()},
    "phi3": _WINDOW,
    "starcoder2": _WINDOW,
    "mamba": {"ssm.inner_size": ("intermediate_size",)},
    "lfm2": {"attention.head_count_kv": ()},
    "qwen35": _OF_QWEN35,
    # Files of experts alone say nothing of a dense layer's width.
    "qwen35moe": _OF_QWEN35 | {"feed_forward_length": ()},
}
# Where a file says nothing of these, transformers would take those of one published model.
_REQUIRED = {"block_count", "embedding_length", "attention.head_count", "expert_used_count"}
_EPSILONS = {"attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"}
_FIXED_HEADS = ("stablelm", "gpt2", "mamba")  # heads share the width of their layer
_INFORMS = {"tensor_data_layout", "pooling_type"}
_ROPE_KEYS = {
    *("dimension_count", "freq_base", "scale_linear", "scaling.type", "scaling.factor"),
    *("scaling.original_context_length", "scaling.finetuned", "scaling.attn_factor"),
    *("scaling.yarn_beta_fast", "scaling.yarn_beta_slow"),
}
ROPE_FACTORS = {"llama": ("rope_freqs.weight",), "phi3": ("rope_factors_short.weight", "rope_factors_long.weight")}
"""Tensors that the configuration takes, by architecture."""
# Architectures whose heads may turn some of their channels only.
_PARTIAL = ("phi3", "stablelm", "nemotron", "qwen35", "qwen35moe")
# Layers of the models of 27B parameters, whose scale of queries is that of hidden_size / heads; of no other published
# model does it differ from that of a head of 256 (src/llama-model.cpp).
_WIDE_QUERIES = {"gemma2": 46, "gemma3": 62}
_HEAD_OF_GEMMA = 256
_FREQUENCY_BASE = 10_000.0
_BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}


def gguf_config(library: Any, path: Path, config: Any) -> Any:
    """The configuration of transformers with what a GGUF file states; a file that states more is refused."""
    metadata, tensors = gguf_header(path)
    architecture = str(metadata.get("general.architecture"))
    if architecture not in ARCHITECTURES:
        raise unread(path, f"the architecture {architecture!r}, which is none of {', '.join(ARCHITECTURES)}")
    if config.model_type == "mistral":
        # transformers goes by general.name, and has no names of tensors for what it then takes the file for.
        stated = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "sliding_window")}
        config = library.LlamaConfig(**stated)
    begin = f"{architecture}."
    keys = {key.removeprefix(begin): value for key, value in metadata.items() if key.startswith(begin)}
    _set_stated(path, config, architecture, keys)
    if "vocab_size" not in keys:
        config.vocab_size = metadata.get("tokenizer.ggml.tokens", config.vocab_size)
    config.tie_word_embeddings = "output.weight" not in tensors
    for setting, tensor in _BIASES.items():
        if hasattr(config, setting):
            setattr(config, setting, tensor in tensors)
    if architecture in _WIDE_QUERIES:
        _set_query_scale(path, config, architecture)
    if getattr(config, "rope_parameters", None):
        _set_rope(path, config, architecture, keys, tensors)
    return config


def _set_stated(path: Path, config: Any, architecture: str, keys: Mapping[str, Any]) -> None:
    """Set what the keys state; two that state one setting must agree."""
    known = _SETTINGS | _OF_ARCHITECTURE.get(architecture, {})
    required = _REQUIRED | ({"attention.sliding_window"} if architecture == "gemma3" else set[str]())
    missing = [key for key in required - keys.keys() if any(hasattr(config, name) for name in known[key])]
    if missing or not keys.keys() & _EPSILONS:
        raise unread(path, f"no {architecture}.{(missing or sorted(_EPSILONS))[0]}")
    # Where these are left out, llama.cpp takes as many heads of keys as of queries, which share the width.
    heads, defaults = keys["attention.head_count"], dict[str, Any]()
    if heads:
        defaults["attention.head_count_kv"] = heads
    if heads and architecture not in _FIXED_HEADS:
        defaults["attention.key_length"] = keys["embedding_length"] // heads
        config.head_dim = getattr(config, "head_dim", None)
    # The blocks that guess further tokens are no part of the decoder.
    blocks = keys["block_count"] - keys.get("nextn_predict_layers", 0)
    stated, turns = dict[str, Any](), bool(getattr(config, "rope_parameters", None))
    for key, value in {**defaults, **keys, "block_count": blocks}.items():
        if key in _INFORMS or known.get(key) == () or (key, value) == ("attention.causal", True):
            continue
        if turns and key.startswith("rope.") and key.removeprefix("rope.") in _ROPE_KEYS:
            continue
        setting = next((name for name in known.get(key, (key,)) if hasattr(config, name)), "")
        if setting == "layer_types":
            # All but each of a period's last have a window.
            value = [f"{'sliding' if layer % value else 'full'}_attention" for layer in range(1, blocks + 1)]
        elif setting == "sliding_window":
            value = value or None
        elif not value and key != "attention.causal" and not isinstance(getattr(config, setting, None), bool):
            # Switched off.
            continue
        if not setting or stated.setdefault(setting, value) != value:
            raise unread(path, f"{architecture}.{key} = {value!r}")
        if getattr(config, setting) != value:
            setattr(config, setting, value)


def _set_query_scale(path: Path, config: Any, architecture: str) -> None:
    """Set the scale of queries, which no key states, where all models that have been published agree on it."""
    if config.num_hidden_layers == _WIDE_QUERIES[architecture]:
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads
    elif config.head_dim == _HEAD_OF_GEMMA:
        config.query_pre_attn_scalar = config.head_dim
    else:
        raise unread(path, f"heads of {config.head_dim} without their scale, which is known for {_HEAD_OF_GEMMA}")


def _set_rope(path: Path, config: Any, architecture: str, keys: Mapping[str, Any], tensors: Collection[str]) -> None:
    """Set the rotary embedding: base, channels, and the scaling or the factors of the frequencies."""
    said = {key.removeprefix("rope."): value for key, value in keys.items() if key.startswith("rope.")}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": said.get("freq_base", _FREQUENCY_BASE)}
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turned = said.get("dimension_count", head)
    if architecture in _PARTIAL:
        # Models take the whole part of the product.
        share = turned / head
        rope["partial_rotary_factor"] = share if int(head * share) == turned else math.nextafter(share, 1)
    elif turned != head:
        raise unread(path, f"rope.dimension_count {turned} in heads of {head}")
    factor = said.get("scaling.factor") or said.get("scale_linear") or 1.0
    kind, attention = said.get("scaling.type", "linear"), said.get("scaling.attn_factor", 1.0)
    trained = said.get("scaling.original_context_length", config.max_position_embeddings)
    factors = [gguf_tensor(path, name).tolist() for name in ROPE_FACTORS.get(architecture, ()) if name in tensors]
    usual = kind in ("linear", "none", "longrope") and factor == 1 if factors else kind in ("linear", "none", "yarn")
    if not usual or (attention != 1 and not factors) or any(len(table) != turned // 2 for table in factors):
        lengths = f" and {len(factors[0])} factors of frequencies" if factors else ""
        raise unread(path, f"rope.scaling {kind}, factor {factor}, attn_factor {attention}{lengths}")
    if factors:
        # This scaling takes any factors; two equal lists turn heads alike at each length, as Llama 3's factors do.
        rope |= {"rope_type": "longrope", "short_factor": factors[0], "long_factor": factors[-1]}
        rope |= {"attention_factor": attention, "original_max_position_embeddings": trained}
        if hasattr(config, "original_max_position_embeddings"):
            config.original_max_position_embeddings = trained
    elif kind == "yarn":
        rope |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained}
        betas = {key: said.get(f"scaling.yarn_{key}") for key in ("beta_fast", "beta_slow")}
        rope |= {key: beta for key, beta in betas.items() if beta is not None}
    elif kind == "linear" and factor != 1:
        rope |= {"rope_type": "linear", "factor": factor}
    if architecture == "gemma3":
        near = {"rope_type": "default", "rope_theta": said.get("freq_base_swa", _FREQUENCY_BASE)}
        config.rope_parameters = {"full_attention": rope, "sliding_attention": near}
    else:
        config.rope_parameters = config.rope_parameters | rope
