"""Configurations of models of transformers and of libraries beside it: read without running anything, and checked."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from statesize.adapters.models.quantised import READ_DEQUANTISED, check_method, check_rounding, quantisation
from statesize.errors import FileError, ModelError
from statesize.io.files import parse_json, read_limited
from statesize.models.plugins import is_mamba_ssm

MAMBA_SSM_NAMES = {r"^backbone\.embedding\.": "backbone.embeddings."}
"""Weights of mamba_ssm by their names in transformers, where these differ."""

# What the layers of mamba_ssm are made with, by its name in transformers and with its default; a name of None must be
# at its default, since the layer of transformers has no such choice.
_LAYERS: dict[str, dict[str, tuple[str | None, Any]]] = {
    "Mamba1": {
        "d_state": ("state_size", 16),
        "d_conv": ("conv_kernel", 4),
        "expand": ("expand", 2),
        "dt_rank": ("time_step_rank", "auto"),
        "bias": ("use_bias", False),
        "conv_bias": ("use_conv_bias", True),
    },
    "Mamba2": {
        "d_state": ("state_size", 128),
        "d_conv": ("conv_kernel", 4),
        "expand": ("expand", 2),
        "headdim": ("head_dim", 64),
        "ngroups": ("n_groups", 1),
        "chunk_size": ("chunk_size", 256),
        "bias": ("use_bias", False),
        "conv_bias": ("use_conv_bias", True),
        "d_ssm": (None, None),
        "D_has_hdim": (None, False),
        "rmsnorm": (None, True),
        "norm_before_gate": (None, False),
        "dt_limit": (None, [0.0, float("inf")]),
    },
}
# They choose first values of weights, or kernels.
_IGNORED = {"layer", "dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "A_init_range", "conv_init"}
_IGNORED |= {"use_fast_path", "use_mem_eff_path"}
_REQUIRED: dict[str, Any] = {"d_intermediate": 0, "attn_layer_idx": [], "rms_norm": True}


def read_config(library: Any, name: str, options: dict[str, Any]) -> Any:
    """The configuration of a folder or an id of the hub, once transformers knows its kind."""
    stored: dict[str, Any] = library.PreTrainedConfig.get_config_dict(name, **options)[0]
    if stored.get("auto_map", {}) is None:
        raise FileError(f"auto_map of {name} must name classes, got null. Take it out of its config.json.")
    if is_mamba_ssm(stored):
        return mamba_ssm_config(library, name, stored)
    kind = stored.get("model_type")
    if kind is None:
        raise FileError(f"{name} must name its model_type in config.json, got none. Copy config.json again.")
    if isinstance(kind, str) and kind not in library.CONFIG_MAPPING and "auto_map" not in stored:
        _import_fla(name, kind)
    return library.AutoConfig.from_pretrained(name, **options)


def mamba_ssm_config(library: Any, name: str, stored: dict[str, Any]) -> Any:
    """The configuration of the same model in transformers, whose weights have the same names and shapes."""
    layer: dict[str, Any] = dict(stored.get("ssm_cfg") or {})
    kind = layer.get("layer", "Mamba1")
    if kind not in _LAYERS:
        raise ModelError(f"{name} must have layers Mamba1 or Mamba2 to be read without mamba_ssm, got {kind}.")
    keys = _LAYERS[kind]
    stated = {key: value for key, value in layer.items() if key not in _IGNORED}
    if unknown := sorted(stated.keys() - keys.keys()):
        raise ModelError(f"{name} must have layers as {kind} is known here, got settings {', '.join(unknown)} too.")
    required = _REQUIRED | {key: default for key, (to, default) in keys.items() if to is None}
    for key, value in (stored | stated).items():
        if key in required and value != required[key]:
            raise ModelError(f"{name} must have {key} {required[key]!r} to be read without mamba_ssm, got {value!r}.")
    multiple = stored.get("pad_vocab_size_multiple", 8)
    settings = {to: stated.get(key, default) for key, (to, default) in keys.items() if to}
    settings |= {
        "hidden_size": stored["d_model"],
        "num_hidden_layers": stored["n_layer"],
        "vocab_size": -(-stored["vocab_size"] // multiple) * multiple,
        "residual_in_fp32": stored.get("residual_in_fp32", True),
        "tie_word_embeddings": stored.get("tie_embeddings", True),
    }
    if kind == "Mamba1":
        return library.MambaConfig(**settings)
    return library.Mamba2Config(
        num_heads=settings["expand"] * settings["hidden_size"] // settings["head_dim"], **settings
    )


def _import_fla(name: str, kind: str) -> None:
    """Let flash-linear-attention register its models with transformers."""
    try:
        importlib.import_module("fla.models")
    except ImportError as error:
        raise FileError(
            f"{name} is of the kind {kind!r}, which transformers does not know ({error}). If it is a model of "
            "flash-linear-attention, pip install 'statesize[fla]', which needs Triton."
        ) from error


MOST_LAYERS = 10_000
"""Layers of a model of transformers; of its own checkpoints statesize compares them with the weights that are there."""

_LAYER_COUNT_KEYS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_blocks")
_IMPLEMENTATIONS = ("_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation")


def checked_config(library: Any, name: str, source: str, options: dict[str, Any]) -> Any:
    """The configuration of a model that can be measured: causal, of a size that exists, without code of its own."""
    file = Path(name) / "config.json"
    if file.is_file():
        try:
            stored = parse_json(read_limited(file))
        except ValueError as error:
            raise FileError(f"{file} is damaged ({error}). Copy it again.") from error
        # Before a class of it may list its layers, or look for a kernel.
        _check_entries(name, stored, options)
    config = read_config(library, source, options)
    # The same for the hub and for a GGUF file.
    _check_entries(name, config.to_dict(), options)
    _check_causal(name, config, library)
    # A model that rounds more than its weights is refused: a copy with unrounded weights would not be it.
    check_method(name, config, FileError)
    settings = quantisation(config)
    check_rounding(name, settings)
    if settings.get("quant_method") in READ_DEQUANTISED:
        config.quantization_config = settings | {"dequantize": True}
    return config


def _check_entries(name: str, stored: object, options: dict[str, Any]) -> None:
    """Refuse a configuration that names code to fetch and run, or a number of layers that no model has."""
    for key, value in _entries(stored):
        runs_code = key.removesuffix("_internal") in _IMPLEMENTATIONS
        if runs_code and not options["trust_remote_code"] and isinstance(value, str) and "/" in value:
            raise FileError(
                f"{name} brings code of its own, the kernel {value!r} of the hub, which is not run; take it out of its "
                "config.json, or if you have read it, give --trust-remote-code."
            )
        if key in _LAYER_COUNT_KEYS and isinstance(value, int) and not 0 <= value <= MOST_LAYERS:
            raise FileError(f"{key} of {name} must be from 0 to {MOST_LAYERS:,}, got {value:,}. Give its config.json.")


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """All entries of JSON objects, however deep."""
    if isinstance(value, Mapping):
        for key, part in cast("Mapping[str, object]", value).items():
            yield str(key), part
            yield from _entries(part)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for part in cast("Sequence[object]", value):
            yield from _entries(part)


def _check_causal(name: str, config: Any, library: Any) -> None:
    """Refuse a model that is no causal language model."""
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name} is an encoder-decoder model, which takes more than a text. Load it with transformers and give "
            'statesize.profile what it takes, such as {"input_ids": …, "decoder_input_ids": …}.'
        )
    architectures = cast("list[str]", getattr(config, "architectures", None) or [])
    masked = any(architecture.endswith(("ForMaskedLM", "ForPreTraining")) for architecture in architectures)
    is_causal = type(config) in library.AutoModelForCausalLM._model_mapping or "AutoModelForCausalLM" in (
        getattr(config, "auto_map", None) or {}
    )
    if not is_causal or (masked and not getattr(config, "is_decoder", False)):
        raise ModelError(
            f"{name} is no causal language model ({', '.join(architectures) or config.model_type}): each of its "
            "positions sees the later ones, or transformers has no language model of it. Give a decoder, as GPT-2 is."
        )
