"""Models of transformers that are refused, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from statesize import zoo
from statesize.errors import FileError, InputError, ModelError

MOST_LAYERS = 10_000
"""Layers of a model of transformers; of its own checkpoints statesize compares them with the weights that are there."""


def check_config(name: str, config: Any, options: dict[str, Any]) -> None:
    """Refuse a configuration that names code to fetch and run, or a number of layers that no model has."""
    for key in ("_attn_implementation_internal", "_attn_implementation", "_experts_implementation_internal"):
        named = getattr(config, key, None)
        if not options["trust_remote_code"] and isinstance(named, str) and "/" in named:
            raise FileError(
                f"{name} brings code of its own, the kernel {named!r} of the hub, which is not run; take it out of its "
                "config.json, or if you have read it, give --trust-remote-code."
            )
    layers = getattr(config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise FileError(f"{name} says that it has {layers:,} layers; at most {MOST_LAYERS:,} are read.")


def check_causal(name: str, config: Any, library: Any) -> None:
    """Refuse a model that is no causal language model, or has quantised weights."""
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name} is an encoder-decoder model; statesize measures causal language models, as GPT-2 is.")
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"{name} has quantised weights; give the checkpoint that it was made from.")
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


def refusal_of(name: str, error: Exception, options: dict[str, Any], *, allow_pickle: bool) -> FileError | InputError:
    """An error of transformers as one of statesize."""
    reason = " ".join(str(error).split())
    if not allow_pickle and "safetensors" in reason:
        return FileError(
            f"{name} has no weights in safetensors; if you trust where it comes from, --allow-pickle reads the others, "
            "with weights_only=True."
        )
    if not options["trust_remote_code"] and "trust_remote_code" in reason:
        return FileError(
            f"{name} brings Python code of its own, which is not run; if you have read it, give --trust-remote-code."
        )
    if Path(name).is_dir():
        return FileError(f"{name} cannot be loaded: {reason[:300]}")
    first = reason.partition(". ")[0][:200]
    return InputError(
        f"there is no model {name!r} that can be loaded: it is neither a bundled name ({', '.join(zoo.names())}) nor a "
        f"folder, and the Hugging Face hub gives none (offline, misspelt, or it needs a login): {first}"
    )
