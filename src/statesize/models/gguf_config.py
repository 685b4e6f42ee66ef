"""What a GGUF file says of its model: each key and each tensor is in the model that is measured, or it is refused."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from statesize.errors import FileError
from statesize.io.text import listed
from statesize.models.files import gguf_metadata, gguf_tensor, gguf_tensor_names

_ADVICE = "Give the folder of the model that the file was made from."

# Keys behind the name of the architecture, with the setting of transformers that each states; a value that is not a
# name must be what the file says. `None` is read by transformers in a way of its own.
_SHAPE: dict[str, object] = {
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
}
_HEADS: dict[str, object] = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}
_DECODER = _SHAPE | _HEADS | {"feed_forward_length": "intermediate_size"}
_HEAD_SIZE: dict[str, object] = {"attention.key_length": "head_dim", "attention.value_length": "head_dim"}
_RMS: dict[str, object] = {"attention.layer_norm_rms_epsilon": "rms_norm_eps"}
_LLAMA = _DECODER | _HEAD_SIZE | _RMS
_EXPERTS: dict[str, object] = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
_SHARED_EXPERT: dict[str, object] = {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"}
_GEMMA2: dict[str, object] = {
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_MULTI_HEAD: dict[str, object] = {"attention.head_count_kv": "num_attention_heads"}
_QWEN35: dict[str, object] = {
    "rope.dimension_sections": None,
    "full_attention_interval": None,
    "nextn_predict_layers": None,
    "ssm.conv_kernel": None,
    "ssm.state_size": None,
    "ssm.group_count": None,
    "ssm.time_step_rank": None,
    "ssm.inner_size": None,
}
_ARCHITECTURES: dict[str, dict[str, object]] = {
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "qwen2moe": _LLAMA | _EXPERTS | _SHARED_EXPERT,
    "qwen3moe": _LLAMA | _EXPERTS,
    "phi3": _LLAMA | {"attention.sliding_window": "sliding_window"},
    "gemma2": _LLAMA | _GEMMA2,
    "gemma3": _LLAMA | _GEMMA2 | {"attention.sliding_window_pattern": "layer_types"},
    "starcoder2": _DECODER
    | _HEAD_SIZE
    | {"attention.layer_norm_epsilon": "norm_epsilon", "attention.sliding_window": "sliding_window"},
    "nemotron": _DECODER | _HEAD_SIZE | {"attention.layer_norm_epsilon": "norm_eps"},
    "stablelm": _DECODER
    | {"attention.layer_norm_epsilon": "layer_norm_eps", "use_parallel_residual": "use_parallel_residual"},
    # The rows of more key-value heads are in an order that transformers does not undo.
    "falcon": _DECODER
    | {
        "feed_forward_length": "ffn_hidden_size",
        "attention.head_count_kv": 1,
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    "gpt2": _DECODER
    | _MULTI_HEAD
    | {"feed_forward_length": "n_inner", "attention.layer_norm_epsilon": "layer_norm_epsilon"},
    # FalconMamba's normalisation of steps, B and C is not in the Mamba of transformers.
    "mamba": _SHAPE
    | {"feed_forward_length": 0, "attention.head_count": 0, "attention.head_count_kv": 0, "ssm.dt_b_c_rms": False}
    | {
        "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
        "ssm.conv_kernel": "conv_kernel",
        "ssm.state_size": "state_size",
        "ssm.time_step_rank": "time_step_rank",
        "ssm.inner_size": "intermediate_size",
    },
    "bloom": _SHAPE
    | _HEADS
    | _MULTI_HEAD
    | {
        "context_length": None,
        "feed_forward_length": None,
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    "minimax-m2": _LLAMA
    | {
        "expert_count": "num_local_experts",
        "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "intermediate_size",
        "expert_gating_func": 2,
    },
    "lfm2": _LLAMA
    | {
        "attention.head_count_kv": None,
        "attention.layer_norm_rms_epsilon": "norm_eps",
        "shortconv.l_cache": "conv_L_cache",
    },
    "qwen35": _LLAMA | _QWEN35,
    # Files of experts alone say nothing of a dense layer's width.
    "qwen35moe": _LLAMA | _QWEN35 | _EXPERTS | _SHARED_EXPERT | {"feed_forward_length": None},
}
# Where a file says nothing of these, llama.cpp refuses it; transformers would take those of one published model.
_REQUIRED = {
    *("block_count", "embedding_length", "feed_forward_length", "attention.head_count", "expert_used_count"),
    *("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"),
}
# They change nothing, or what they change is switched off.
_ANYWHERE: dict[str, object] = {"attention.causal": True, "expert_count": 0, "expert_used_count": 0}
_INFORMS = {"tensor_data_layout", "pooling_type"}
_ROPE_KEYS = {
    *("rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor"),
    *("rope.scaling.original_context_length", "rope.scaling.finetuned", "rope.scaling.attn_factor"),
    *("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
}
_NEAR = {"gemma3": ("rope.freq_base_swa",)}
# Architectures whose heads may turn some of their channels only.
_PARTIAL = ("phi3", "stablelm", "nemotron", "minimax-m2", "qwen35", "qwen35moe")
# Layers of the models of 27B parameters, whose scale of queries is that of hidden_size / heads; of no other model does
# it differ from that of the head's size (src/llama-model.cpp).
_WIDE_QUERIES = {"gemma2": 46, "gemma3": 62}
_HEAD_OF_GEMMA = 256
_FREQUENCY_BASE = 10_000.0

_ROPE_FACTORS = {"llama": ("rope_freqs.weight",), "phi3": ("rope_factors_short.weight", "rope_factors_long.weight")}
_BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}


def gguf_config(library: Any, path: Path, config: Any) -> Any:
    """The configuration of a GGUF file's model with what transformers leaves out of it; FileError for what it lacks."""
    metadata, tensors = gguf_metadata(path), gguf_tensor_names(path)
    architecture = str(metadata.get("general.architecture"))
    if architecture not in _ARCHITECTURES:
        raise FileError(
            f"The architecture of {path} must be one of {', '.join(_ARCHITECTURES)}, got {architecture!r}, of which "
            f"transformers may leave something out. {_ADVICE}"
        )
    if architecture == "llama" and config.model_type == "mistral":
        # transformers goes by general.name, and has no names of tensors for what it then takes the file for.
        said = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "sliding_window")}
        config = library.LlamaConfig(**said)
    begin = f"{architecture}."
    keys = {key.removeprefix(begin): value for key, value in metadata.items() if key.startswith(begin)}
    known = _ANYWHERE | _ARCHITECTURES[architecture]
    turns = bool(getattr(config, "rope_parameters", None))
    allowed = {*known, *_INFORMS, *(_ROPE_KEYS if turns else ()), *_NEAR.get(architecture, ())}
    if unknown := sorted(keys.keys() - allowed):
        raise FileError(
            f"{path} must state nothing that transformers leaves out, got "
            f"{listed([f'{begin}{key} = {keys[key]!r}' for key in unknown])}. {_ADVICE}"
        )
    required = {*_REQUIRED, *(("attention.sliding_window",) if architecture == "gemma3" else ())}
    if missing := sorted(key for key in required - keys.keys() if isinstance(known.get(key), str)):
        raise FileError(f"{path} must state {listed([begin + key for key in missing])}, got no such key. {_ADVICE}")
    _set_all(path, config, _complete(keys, known), known)
    config.tie_word_embeddings = "output.weight" not in tensors
    for setting, tensor in _BIASES.items():
        if hasattr(config, setting):
            setattr(config, setting, tensor in tensors)
    if architecture in _WIDE_QUERIES:
        _set_query_scale(path, config, architecture)
    if turns:
        _set_rope(path, config, architecture, keys, tensors)
    return config


def _complete(keys: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The keys with what llama.cpp takes where they are left out."""
    heads, defaults = keys.get("attention.head_count", 0), dict[str, Any]()
    if "attention.head_count_kv" in known:
        defaults["attention.head_count_kv"] = heads
    if "attention.key_length" in known:
        defaults["attention.key_length"] = keys["embedding_length"] // heads
    # The blocks that guess further tokens are no part of the decoder.
    blocks = keys["block_count"] - keys.get("nextn_predict_layers", 0)
    return {**defaults, **keys, "block_count": blocks}


def _set_all(path: Path, config: Any, keys: Mapping[str, Any], known: Mapping[str, object]) -> None:
    """Set what the keys state; two that state one setting must agree."""
    stated: dict[str, Any] = {}
    for key, value in keys.items():
        setting = known.get(key)
        if setting is None:
            continue
        if setting == "layer_types":
            value = _layer_types(value, config.num_hidden_layers)
        elif setting == "sliding_window":
            value = value or None
        expected = stated.setdefault(setting, value) if isinstance(setting, str) else setting
        if value != expected:
            raise FileError(f"{key} of {path} must be {expected}, got {value}. {_ADVICE}")
        if isinstance(setting, str) and getattr(config, setting, None) != value:
            setattr(config, setting, value)


def _layer_types(pattern: int | list[bool], layers: int) -> list[str]:
    """Which layers have a window: all but each of a period's last, or those that the file lists."""
    period = pattern if isinstance(pattern, int) else 0
    windows = [(layer + 1) % period != 0 for layer in range(layers)] if period else pattern
    return ["sliding_attention" if window else "full_attention" for window in cast("list[bool]", windows)]


def _set_query_scale(path: Path, config: Any, architecture: str) -> None:
    """Set the scale of queries, which no key states, where all models that have been published agree on it."""
    if config.num_hidden_layers == _WIDE_QUERIES[architecture]:
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads
    elif config.head_dim == _HEAD_OF_GEMMA:
        config.query_pre_attn_scalar = config.head_dim
    else:
        raise FileError(
            f"{path} must be of a Gemma whose scale of queries is known, with heads of {_HEAD_OF_GEMMA} or "
            f"{_WIDE_QUERIES[architecture]} layers, got heads of {config.head_dim} in {config.num_hidden_layers} "
            f"layers; the file does not say it. {_ADVICE}"
        )


def _set_rope(path: Path, config: Any, architecture: str, keys: Mapping[str, Any], tensors: Collection[str]) -> None:
    """Set how heads turn: base, channels, and the scaling or the factors of the frequencies."""
    begin, base = f"{architecture}.rope.", keys.get("rope.freq_base", _FREQUENCY_BASE)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": base}
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turned = keys.get("rope.dimension_count", head)
    if architecture in _PARTIAL:
        share = turned / head
        # Models take the whole part of the product.
        rope["partial_rotary_factor"] = share if int(head * share) == turned else math.nextafter(share, 1)
    elif turned != head:
        raise FileError(f"{begin}dimension_count of {path} must be its heads' {head}, got {turned}. {_ADVICE}")
    factor = keys.get("rope.scaling.factor") or keys.get("rope.scale_linear") or 1.0
    kind = keys.get("rope.scaling.type", "linear")
    trained = keys.get("rope.scaling.original_context_length", config.max_position_embeddings)
    attention = keys.get("rope.scaling.attn_factor", 1.0)
    names = [name for name in _ROPE_FACTORS.get(architecture, ()) if name in tensors]
    if names:
        if factor != 1 or kind not in ("linear", "none", "longrope"):
            raise FileError(f"{begin}scaling of {path} must be none beside {names[0]}, got {kind} {factor}. {_ADVICE}")
        factors = [gguf_tensor(path, name).tolist() for name in names]
        if any(len(one) != turned // 2 for one in factors):
            raise FileError(f"{names[0]} of {path} must have {turned // 2} factors, got {len(factors[0])}. {_ADVICE}")
        # This scaling takes any factors; two equal lists turn heads alike at each length, as Llama 3's factors do.
        rope |= {"rope_type": "longrope", "short_factor": factors[0], "long_factor": factors[-1]}
        rope |= {"attention_factor": attention, "original_max_position_embeddings": trained}
        if hasattr(config, "original_max_position_embeddings"):
            config.original_max_position_embeddings = trained
    elif attention != 1 or kind not in ("none", "linear", "yarn"):
        raise FileError(
            f"{begin}scaling of {path} must be none, linear or yarn, with an attn_factor of 1, got {kind} and "
            f"{attention}. {_ADVICE}"
        )
    elif kind == "linear" and factor != 1:
        rope |= {"rope_type": "linear", "factor": factor}
    elif kind == "yarn":
        rope |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained}
        rope |= {
            key: keys[f"rope.scaling.yarn_{key}"]
            for key in ("beta_fast", "beta_slow")
            if f"rope.scaling.yarn_{key}" in keys
        }
    if architecture == "gemma3":
        near = {"rope_type": "default", "rope_theta": keys.get("rope.freq_base_swa", _FREQUENCY_BASE)}
        config.rope_parameters = {"full_attention": rope, "sliding_attention": near}
    else:
        config.rope_parameters = config.rope_parameters | rope


def check_tensors(path: Path, model: nn.Module, unexpected: Collection[str]) -> None:
    """Refuse a GGUF file with tensors that no part of the model takes."""
    import transformers.modeling_gguf_pytorch_utils as utilities

    architecture, reader = str(gguf_metadata(path)["general.architecture"]), cast("Any", utilities)
    unused = sorted(unexpected)
    # Others are renamed one by one, and what is left over is unexpected.
    if architecture not in _renamed():
        processor = reader.TENSOR_PROCESSORS.get(architecture, reader.TensorProcessor)(config={})
        names = reader.get_gguf_hf_weights_map(model, processor)
        taken = {*names, *(f"{name}.weight" for name in names), *_ROPE_FACTORS.get(architecture, ())}
        unused += [tensor for tensor in gguf_tensor_names(path) if tensor not in taken]
    if unused:
        raise FileError(f"{path} must hold tensors of its model alone, got {listed(unused)} beside them. {_ADVICE}")


def _renamed() -> Collection[str]:
    """Architectures that transformers reads as it does safetensors, by other names."""
    try:
        import transformers.integrations.gguf.gguf_conversion_mapping as mapping
    except ImportError:
        return ()
    return cast("Collection[str]", cast("Any", mapping).GGUF_ARCHS)
