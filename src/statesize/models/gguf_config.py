"""Configurations of GGUF files: what transformers leaves out or reads wrongly is set, and what is not known refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

from statesize.models.gguf import gguf_header, gguf_tensor, unread

# Keys behind the name of the architecture, each with the setting of transformers that it states; "" where transformers
# reads it rightly in a way of its own. Others state the setting of their own name, where there is one.
_SETTINGS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    # They say how the file was made.
    "tensor_data_layout": "",
    "pooling_type": "",
}
_WINDOW = {"attention.sliding_window": "sliding_window"}
# Architectures, with the keys that each has for itself. Of those of its own list transformers sets all that is stated.
_ARCHITECTURES: dict[str, dict[str, str]] = {
    **{name: {} for name in ("llama", "qwen2", "qwen3", "qwen2moe", "qwen3moe")},
    "gemma2": _WINDOW,
    "gemma3": _WINDOW | {"attention.sliding_window_pattern": "layer_types"},
    "phi3": _WINDOW,
}
ROPE_FACTORS = {"llama": ("rope_freqs.weight",), "phi3": ("rope_factors_short.weight", "rope_factors_long.weight")}
"""Tensors that the configuration takes, by architecture."""
# Layers of the models of 27B parameters, whose scale of queries is that of hidden_size / heads; of no other published
# model does it differ from that of a head of 256 (src/llama-model.cpp).
_WIDE_QUERIES = {"gemma2": 46, "gemma3": 62}
_HEAD_OF_GEMMA = 256
_FREQUENCY_BASE = 10_000.0


def gguf_config(library: Any, path: Path, config: Any) -> Any:
    """The configuration of transformers with what a GGUF file states; a file that states more is refused."""
    import transformers.integrations.gguf.gguf_config_mapping as mapping

    whole = cast("Any", mapping).GGUF_CONFIG_ARCHS
    metadata, tensors = gguf_header(path)
    architecture = str(metadata.get("general.architecture"))
    if architecture in whole:
        if scaling := [key for key in metadata if ".rope.scal" in key]:
            raise unread(path, scaling[0])
        config.vocab_size = metadata.get(f"{architecture}.vocab_size", config.vocab_size)
        return config
    if architecture not in _ARCHITECTURES:
        known = ", ".join([*_ARCHITECTURES, *whole])
        raise unread(path, f"the architecture {architecture!r}, which is none of {known}")
    if config.model_type == "mistral":
        # transformers goes by general.name, and has no names of tensors for what it then takes the file for.
        stated = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "sliding_window")}
        config = library.LlamaConfig(**stated)
    begin = f"{architecture}."
    keys = {key.removeprefix(begin): value for key, value in metadata.items() if key.startswith(begin)}
    turning = {key: keys.pop(key) for key in [*keys] if key.startswith("rope.")}
    _set_stated(path, config, _SETTINGS | _ARCHITECTURES[architecture], keys)
    config.vocab_size = keys.get("vocab_size", metadata.get("tokenizer.ggml.tokens", config.vocab_size))
    config.tie_word_embeddings = "output.weight" not in tensors
    if architecture in _WIDE_QUERIES:
        if config.num_hidden_layers == _WIDE_QUERIES[architecture]:
            config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads
        elif config.head_dim == _HEAD_OF_GEMMA:
            config.query_pre_attn_scalar = _HEAD_OF_GEMMA
        else:
            raise unread(path, f"heads of {config.head_dim} without their scale, which is known for {_HEAD_OF_GEMMA}")
    factors = [gguf_tensor(path, name).tolist() for name in ROPE_FACTORS.get(architecture, ()) if name in tensors]
    _set_rope(path, config, turning, factors)
    return config


def _set_stated(path: Path, config: Any, known: dict[str, str], keys: dict[str, Any]) -> None:
    """Set what the keys state; two that state one setting must agree."""
    # Where these are left out, llama.cpp takes as many heads of keys as of queries, which share the width.
    heads, config.head_dim = keys["attention.head_count"], getattr(config, "head_dim", None)
    defaults = {"attention.head_count_kv": heads, "attention.key_length": keys["embedding_length"] // heads}
    stated = dict[str, Any]()
    for key, value in {**defaults, **keys}.items():
        setting = known.get(key, key)
        if not setting or (key, value) == ("attention.causal", True):
            continue
        if setting == "layer_types":
            # All but each of a period's last have a window.
            layers = range(1, keys["block_count"] + 1)
            value = [f"{'sliding' if layer % value else 'full'}_attention" for layer in layers]
        elif not value and key != "attention.causal":
            # Switched off.
            value = None
            if setting != "sliding_window":
                continue
        if not hasattr(config, setting) or stated.setdefault(setting, value) != value:
            raise unread(path, f"{key} = {value!r}")
        setattr(config, setting, value)


def _set_rope(path: Path, config: Any, keys: dict[str, Any], factors: list[list[float]]) -> None:
    """Set the rotary embedding: base, channels, and the scaling or the factors of the frequencies."""

    def take(key: str, default: Any) -> Any:
        return keys.pop(f"rope.{key}", default)

    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": take("freq_base", _FREQUENCY_BASE)}
    head = config.head_dim or config.hidden_size // config.num_attention_heads
    turned = take("dimension_count", head)
    if config.model_type == "phi3":
        # Models take the whole part of the product.
        share = turned / head
        rope["partial_rotary_factor"] = share if int(head * share) == turned else math.nextafter(share, 1)
    elif turned != head:
        raise unread(path, f"rope.dimension_count {turned} in heads of {head}")
    kind, attention = take("scaling.type", "linear"), take("scaling.attn_factor", 1.0)
    factor = take("scaling.factor", None) or 1.0
    trained = take("scaling.original_context_length", None) or config.max_position_embeddings
    if factors:
        known = kind in ("linear", "none", "longrope") and factor == 1 and {turned // 2} == set(map(len, factors))
        # This scaling takes any factors; two equal lists turn heads alike at each length, as Llama 3's factors do.
        rope |= {"rope_type": "longrope", "short_factor": factors[0], "long_factor": factors[-1]}
        rope |= {"attention_factor": attention, "original_max_position_embeddings": trained}
        if hasattr(config, "original_max_position_embeddings"):
            config.original_max_position_embeddings = trained
    else:
        known = kind in ("linear", "none", "yarn") and attention == 1
        if kind == "yarn" or (kind == "linear" and factor != 1):
            rope |= {"rope_type": kind, "factor": factor}
        if kind == "yarn":
            rope["original_max_position_embeddings"] = trained
    if not known:
        lengths = f" and {len(factors[0])} factors of frequencies" if factors else ""
        raise unread(path, f"rope.scaling {kind}, factor {factor}, attn_factor {attention}{lengths}")
    if "sliding_attention" in config.rope_parameters:
        near = {"rope_type": "default", "rope_theta": take("freq_base_swa", _FREQUENCY_BASE)}
        config.rope_parameters = {"full_attention": rope, "sliding_attention": near}
    else:
        config.rope_parameters = config.rope_parameters | rope
    # Whether a scaled model was trained further says nothing of what it computes.
    take("scaling.finetuned", None)
    if keys:
        key, value = next(iter(keys.items()))
        raise unread(path, f"{key} = {value!r}")
