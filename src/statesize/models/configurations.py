"""What is known of a model of transformers before it is loaded: whether the hub has it, and its configuration."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

from statesize.adapters.models.quantised import READ_DEQUANTISED, check_method, check_rounding, quantisation
from statesize.errors import FileError
from statesize.models.plugins import no_model

# Seconds for the hub to answer whether it has a model.
_PATIENCE = 2.0
# Code of the hub that transformers would fetch and run, in any part of a model.
_KERNEL = re.compile(r'"(_?(?:attn|experts)_implementation\w*)": "([^"]*/[^"]*)"')


def ask_hub(name: str, revision: str | None = None) -> None:
    """Refuse an id that the hub does not have, or cannot be asked for, at once: transformers retries for a minute."""
    if Path(name).exists() or snapshot(name, revision or "main"):
        return
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(name, revision=revision, timeout=_PATIENCE)
    except Exception as error:  # the clients of its versions have no error in common
        # A hub that is there and slow is left to transformers.
        if type(error).__name__ != "ReadTimeout":
            raise not_given(name, error) from error


def snapshot(name: str, revision: str) -> Path | None:
    """The folder of a model of the hub on this machine, once it was loaded; its name is the commit."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(path).parent if isinstance(path, str) else None


def not_given(name: str, error: BaseException) -> FileError:
    """The refusal of a name of which the hub gives no model."""
    reason = " ".join(str(error).split()).partition(". ")[0][:200]
    return FileError(no_model(name, f"is no folder, and the hub gives none: {reason}"))


def checked_config(library: Any, name: str, arguments: dict[str, Any]) -> Any:
    """The configuration of a model that can be measured, without code of its own, and to be read dequantised."""
    stored: dict[str, Any] = library.PreTrainedConfig.get_config_dict(**arguments)[0]
    kernel = _KERNEL.search(json.dumps(stored, default=str))
    if kernel and not arguments["trust_remote_code"]:
        raise FileError(
            f"{kernel[1]} of {name} must be code of transformers, got the kernel {kernel[2]!r} of the hub, which is "
            "not run. Take it out of its config.json, or if you have read it, give --trust-remote-code."
        )
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
    # A model that rounds more than its weights is refused: a copy with unrounded weights would not be it.
    check_method(name, config, FileError)
    settings = quantisation(config)
    check_rounding(name, settings)
    if settings.get("quant_method") in READ_DEQUANTISED:
        config.quantization_config = settings | {"dequantize": True}
    return config
