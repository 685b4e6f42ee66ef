"""Configurations of models of transformers and of libraries beside it: read without running anything, and checked."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from statesize.adapters.models.quantised import READ_DEQUANTISED, check_method, check_rounding, quantisation
from statesize.errors import FileError, ModelError

_IMPLEMENTATIONS = ("_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation")


def checked_config(library: Any, name: str, arguments: dict[str, Any]) -> Any:
    """The configuration of a model that can be measured: causal, of a size that exists, without code of its own."""
    stored: dict[str, Any] = library.PreTrainedConfig.get_config_dict(**arguments)[0]
    if not arguments["trust_remote_code"]:
        # Before a class of it may list its layers, or look for a kernel.
        _refuse_kernels(name, stored)
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
    config = library.AutoConfig.from_pretrained(**arguments)
    _check_causal(name, config, library)
    # A model that rounds more than its weights is refused: a copy with unrounded weights would not be it.
    check_method(name, config, FileError)
    settings = quantisation(config)
    check_rounding(name, settings)
    if settings.get("quant_method") in READ_DEQUANTISED:
        config.quantization_config = settings | {"dequantize": True}
    return config


def _refuse_kernels(name: str, stored: Mapping[str, Any]) -> None:
    """Refuse a configuration that names code to fetch and run, in any part of the model."""
    for key, value in stored.items():
        if isinstance(value, Mapping):
            _refuse_kernels(name, cast("Mapping[str, Any]", value))
        elif key.removesuffix("_internal") in _IMPLEMENTATIONS and isinstance(value, str) and "/" in value:
            raise FileError(
                f"{key} of {name} must be code of transformers, got the kernel {value!r} of the hub, which is not run. "
                "Take it out of its config.json, or if you have read it, give --trust-remote-code."
            )


def _check_causal(name: str, config: Any, library: Any) -> None:
    """Refuse a model that is no causal language model."""
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"model must take a text alone, got the encoder-decoder model {name}. Load it with transformers and give "
            'statesize.profile what it takes, such as {"input_ids": …, "decoder_input_ids": …}.'
        )
    architectures: list[str] = getattr(config, "architectures", None) or []
    masked = any(architecture.endswith(("ForMaskedLM", "ForPreTraining")) for architecture in architectures)
    own: dict[str, Any] = getattr(config, "auto_map", None) or {}
    is_causal = type(config) in library.AutoModelForCausalLM._model_mapping or "AutoModelForCausalLM" in own
    if not is_causal or (masked and not getattr(config, "is_decoder", False)):
        raise ModelError(
            f"model must be a causal language model of transformers, got {name} "
            f"({', '.join(architectures) or config.model_type}). Give a decoder, as GPT-2 is."
        )
