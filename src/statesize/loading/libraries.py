"""Configurations that transformers does not read by itself: of flash-linear-attention, mamba_ssm, and our own."""

from __future__ import annotations

import importlib
from typing import Any

from statesize.errors import FileError, ModelError

# Where the models that are defined here tell transformers of themselves, by `model_type`.
_OWN = {
    "projected_mamba2": "statesize.loading.projected_mamba2",
    "projected_gated_deltanet": "statesize.loading.projected_deltanet",
}

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


def is_mamba_ssm(config: dict[str, Any]) -> bool:
    """Whether a config.json is one of mamba_ssm."""
    return "model_type" not in config and {"d_model", "n_layer"} <= config.keys()


def read_config(library: Any, name: str, options: dict[str, Any]) -> Any:
    """The configuration of a folder or an id of the hub, once transformers knows its kind."""
    stored: dict[str, Any] = library.PreTrainedConfig.get_config_dict(name, **options)[0]
    if is_mamba_ssm(stored):
        return mamba_ssm_config(library, name, stored)
    kind = stored.get("model_type")
    if kind in _OWN:
        importlib.import_module(_OWN[kind])
    if isinstance(kind, str) and kind not in library.CONFIG_MAPPING and "auto_map" not in stored:
        _import_fla(name, kind)
    return library.AutoConfig.from_pretrained(name, **options)


def mamba_ssm_config(library: Any, name: str, stored: dict[str, Any]) -> Any:
    """The configuration of the same model in transformers, whose weights have the same names and shapes."""
    layer: dict[str, Any] = dict(stored.get("ssm_cfg") or {})
    kind = layer.get("layer", "Mamba1")
    if kind not in _LAYERS:
        raise ModelError(f"{name} must have layers Mamba1 or Mamba2 to be read without mamba_ssm, got {kind}.")
    known = _LAYERS[kind]
    given = {key: value for key, value in layer.items() if key not in _IGNORED}
    if unknown := sorted(given.keys() - known.keys()):
        raise ModelError(f"{name} must have layers as {kind} is known here, got settings {', '.join(unknown)} too.")
    required = _REQUIRED | {key: default for key, (to, default) in known.items() if to is None}
    for key, value in (stored | given).items():
        if key in required and value != required[key]:
            raise ModelError(f"{name} must have {key} {required[key]!r} to be read without mamba_ssm, got {value!r}.")
    multiple = stored.get("pad_vocab_size_multiple", 8)
    settings = {to: given.get(key, default) for key, (to, default) in known.items() if to}
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
    """Let flash-linear-attention tell transformers of its models."""
    try:
        importlib.import_module("fla.models")
    except ImportError as error:
        raise FileError(
            f"{name} is of the kind {kind!r}, which transformers does not know ({error}). If it is a model of "
            "flash-linear-attention, pip install 'statesize[fla]', which needs Triton."
        ) from error
