"""The configuration of a model of transformers: read without running anything, checked at every depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from statesize.errors import FileError, ModelError
from statesize.files import parse_json, read_limited
from statesize.loading.libraries import read_config

MOST_LAYERS = 10_000
"""Layers of a model of transformers; of its own checkpoints statesize compares them with the weights that are there."""

_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_blocks")
_IMPLEMENTATIONS = ("_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation")

# Settings under which a model also rounds what its layers pass on, by the method that has them.
_ROUNDS_ACTIVATIONS = {
    "fp8": "activation_scheme",
    "fbgemm_fp8": "activation_scale_ub",
    "quanto": "activations",
    "bitsandbytes": "load_in_8bit",
    "bitnet": "quant_method",
    "nvfp4": "quant_method",
}

# Methods whose weights transformers itself reads into floating point on request; others are taken back afterwards.
_READ_DEQUANTISED = ("mxfp4", "compressed-tensors", "gguf", "metal")


def checked_config(library: Any, name: str, source: str, options: dict[str, Any]) -> Any:
    """The configuration of a model that can be measured: causal, of a size that exists, without code of its own."""
    file = Path(name) / "config.json"
    if file.is_file():
        # Before a class of it may list its layers, or look for a kernel.
        _check_entries(name, parse_json(read_limited(file)), options)
    config = read_config(library, source, options)
    # Of the hub and of a GGUF file too.
    _check_entries(name, config.to_dict(), options)
    _check_causal(name, config, library)
    _check_quantisation(name, config)
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
        if key in _LAYERS and isinstance(value, int) and not 0 <= value <= MOST_LAYERS:
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
        raise ModelError(f"{name} is an encoder-decoder model; statesize measures causal language models, as GPT-2 is.")
    architectures = cast("list[str]", getattr(config, "architectures", None) or [])
    masked = any(architecture.endswith(("ForMaskedLM", "ForPreTraining")) for architecture in architectures)
    known = type(config) in library.AutoModelForCausalLM._model_mapping or "AutoModelForCausalLM" in (
        getattr(config, "auto_map", None) or {}
    )
    if not known or (masked and not getattr(config, "is_decoder", False)):
        raise ModelError(
            f"{name} is no causal language model ({', '.join(architectures) or config.model_type}): each of its "
            "positions sees the later ones, or transformers has no language model of it. Give a decoder, as GPT-2 is."
        )


def _check_quantisation(name: str, config: Any) -> None:
    """Refuse a model that rounds more than its weights, which a copy with unrounded weights would not be."""
    given = getattr(config, "quantization_config", None)
    if given is None:
        return
    settings = cast("dict[str, Any]", given if isinstance(given, dict) else given.to_dict())
    method = str(settings.get("quant_method"))
    groups = [value for key, value in _entries(settings) if key == "input_activations"]
    if settings.get(_ROUNDS_ACTIVATIONS.get(method, "")) or any(groups):
        raise ModelError(
            f"{name} rounds what its layers pass on, not its weights alone ({method}), which shows up as state that is "
            "not there. Give the checkpoint that it was made from."
        )
    if method in _READ_DEQUANTISED:
        config.quantization_config = settings | {"dequantize": True}
