"""Configurations of models of transformers and of libraries beside it: read without running anything, and checked."""

from __future__ import annotations

import importlib
import json
import re
from contextlib import suppress
from typing import Any

from statesize.adapters.models.quantised import READ_DEQUANTISED, check_method, check_rounding, quantisation
from statesize.errors import FileError

# Code of the hub that transformers would fetch and run, in any part of a model.
_KERNEL = re.compile(r'"(_?(?:attn|experts)_implementation\w*)": "([^"]*/[^"]*)"')


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
        # flash-linear-attention registers its models with transformers.
        with suppress(ImportError):
            importlib.import_module("fla.models")
    config = library.AutoConfig.from_pretrained(**arguments)
    # A model that rounds more than its weights is refused: a copy with unrounded weights would not be it.
    check_method(name, config, FileError)
    settings = quantisation(config)
    check_rounding(name, settings)
    if settings.get("quant_method") in READ_DEQUANTISED:
        config.quantization_config = settings | {"dequantize": True}
    return config
