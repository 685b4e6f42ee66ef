"""Configurations of models of transformers and of libraries beside it: read without running anything, and checked."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

from statesize.adapters.models.quantised import READ_DEQUANTISED, check_method, check_rounding, quantisation
from statesize.errors import FileError, ModelError

MAMBA_SSM_NAMES = {r"^backbone\.embedding\.": "backbone.embeddings."}
"""Weights of mamba_ssm by their names in transformers, where these differ."""

# The settings of layers of mamba_ssm by their names in transformers, and with their defaults where these differ.
_NAMES = {"d_state": "state_size", "d_conv": "conv_kernel", "expand": "expand", "bias": "use_bias"}
_NAMES |= {"conv_bias": "use_conv_bias"}
_LAYERS = {
    "Mamba1": _NAMES | {"dt_rank": "time_step_rank"},
    "Mamba2": _NAMES | {"headdim": "head_dim", "ngroups": "n_groups", "chunk_size": "chunk_size"},
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "Mamba1": {"dt_rank": "auto"},
    "Mamba2": {"ngroups": 1, "headdim": 64, "expand": 2},
}
# The layers of transformers have no such choice.
_FIXED: dict[str, Any] = {"d_intermediate": 0, "attn_layer_idx": [], "rms_norm": True, "d_ssm": None}
_FIXED |= {"D_has_hdim": False, "rmsnorm": True, "norm_before_gate": False, "dt_limit": [0.0, float("inf")]}
# They choose first values of weights, or kernels.
_IGNORED = {"layer", "dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "A_init_range", "conv_init"}
_IGNORED |= {"use_fast_path", "use_mem_eff_path"}

_MOST_LAYERS = 10_000
_LAYER_COUNT_KEYS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_blocks")
_IMPLEMENTATIONS = ("_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation")


def checked_config(library: Any, name: str, source: str, options: dict[str, Any]) -> Any:
    """The configuration of a model that can be measured: causal, of a size that exists, without code of its own."""
    stored: dict[str, Any] = library.PreTrainedConfig.get_config_dict(source, **options)[0]
    # Before a class of it may list its layers, or look for a kernel.
    _check_entries(name, stored, options)
    config = _read_config(library, name, source, stored, options)
    _check_causal(name, config, library)
    # A model that rounds more than its weights is refused: a copy with unrounded weights would not be it.
    check_method(name, config, FileError)
    settings = quantisation(config)
    check_rounding(name, settings)
    if settings.get("quant_method") in READ_DEQUANTISED:
        config.quantization_config = settings | {"dequantize": True}
    return config


def _read_config(library: Any, name: str, source: str, stored: dict[str, Any], options: dict[str, Any]) -> Any:
    """The configuration of a folder or an id of the hub, once transformers knows its architecture."""
    if "model_type" not in stored and {"d_model", "n_layer"} <= stored.keys():
        return _mamba_ssm_config(library, name, stored)
    kind = stored.get("model_type")
    if isinstance(kind, str) and kind not in library.CONFIG_MAPPING and "auto_map" not in stored:
        try:
            # It registers its models with transformers.
            importlib.import_module("fla.models")
        except ImportError as error:
            raise FileError(
                f"model_type of {name} must be known to transformers, got {kind!r} ({error}). If it is a model of "
                "flash-linear-attention, pip install 'statesize[fla]', which needs Triton."
            ) from error
    return library.AutoConfig.from_pretrained(source, **options)


def _mamba_ssm_config(library: Any, name: str, stored: dict[str, Any]) -> Any:
    """The configuration of the same model in transformers, whose weights have the same names and shapes."""
    layer: dict[str, Any] = dict(stored.get("ssm_cfg") or {})
    kind = layer.get("layer", "Mamba1")
    names, stated = _LAYERS.get(kind, {}), {key: value for key, value in layer.items() if key not in _IGNORED}
    wrong = [key for key, value in (stored | stated).items() if key in _FIXED and value != _FIXED[key]]
    if wrong := [*wrong, *sorted(stated.keys() - names.keys() - _FIXED.keys())] if names else ["layer"]:
        value = (stored | layer)[wrong[0]]
        raise ModelError(f"{name} must be read by mamba_ssm itself, got {wrong[0]} {value!r}. Give the loaded model.")
    multiple = stored.get("pad_vocab_size_multiple", 8)
    settings = {names[key]: value for key, value in (_DEFAULTS[kind] | stated).items() if key in names}
    settings |= {
        "hidden_size": stored["d_model"],
        "num_hidden_layers": stored["n_layer"],
        "vocab_size": -(-stored["vocab_size"] // multiple) * multiple,
        "residual_in_fp32": stored.get("residual_in_fp32", True),
        "tie_word_embeddings": stored.get("tie_embeddings", True),
    }
    if kind == "Mamba1":
        return library.MambaConfig(**settings)
    heads = settings["expand"] * settings["hidden_size"] // settings["head_dim"]
    return library.Mamba2Config(num_heads=heads, **settings)


def _check_entries(name: str, stored: object, options: dict[str, Any]) -> None:
    """Refuse a configuration that names code to fetch and run, or a number of layers that no model has."""
    for key, value in _entries(stored):
        runs_code = key.removesuffix("_internal") in _IMPLEMENTATIONS
        if runs_code and not options["trust_remote_code"] and isinstance(value, str) and "/" in value:
            raise FileError(
                f"{key} of {name} must be code of transformers, got the kernel {value!r} of the hub, which is not run. "
                "Take it out of its config.json, or if you have read it, give --trust-remote-code."
            )
        if key in _LAYER_COUNT_KEYS and isinstance(value, int) and not 0 <= value <= _MOST_LAYERS:
            raise FileError(f"{key} of {name} must be from 0 to {_MOST_LAYERS:,}, got {value:,}. Give its config.json.")


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """All entries of JSON objects, however deep."""
    if isinstance(value, Mapping):
        yield from ((str(key), entry) for key, entry in cast("Mapping[str, object]", value).items())
        value = list(cast("Mapping[str, object]", value).values())
    if isinstance(value, list | tuple):
        for entry in cast("list[object]", value):
            yield from _entries(entry)


def _check_causal(name: str, config: Any, library: Any) -> None:
    """Refuse a model that is no causal language model."""
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"model must take a text alone, got the encoder-decoder model {name}. Load it with transformers and give "
            'statesize.profile what it takes, such as {"input_ids": …, "decoder_input_ids": …}.'
        )
    architectures = cast("list[str]", getattr(config, "architectures", None) or [])
    masked = any(architecture.endswith(("ForMaskedLM", "ForPreTraining")) for architecture in architectures)
    is_causal = type(config) in library.AutoModelForCausalLM._model_mapping or "AutoModelForCausalLM" in (
        getattr(config, "auto_map", None) or {}
    )
    if not is_causal or (masked and not getattr(config, "is_decoder", False)):
        raise ModelError(
            f"model must be a causal language model of transformers, got {name} "
            f"({', '.join(architectures) or config.model_type}). Give a decoder, as GPT-2 is."
        )
