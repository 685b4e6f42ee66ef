"""A model as a folder: config.json and model.safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from statesize.check import refuse, require_kind, require_path
from statesize.errors import FileError, InputError
from statesize.io.files import replace_files
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_checkpoint(
    model: LanguageModel,
    folder: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Writes a model's configuration and weights; those of another model that are there are replaced.

    Args:
        model: The model.
        folder: Where; made where it is missing.
        dtype: Floating dtype of the stored weights; None keeps the model's.
        extra: JSON values to keep in config.json under "extra".

    Raises:
        InputError: A weight is not finite, or becomes so in `dtype`.
        FileError: The folder cannot be written.
    """
    require_kind("model", model, LanguageModel, "a LanguageModel")
    save_weights(model.config, model.state_dict(), folder, dtype, extra)


def save_weights(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    folder: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """As `save_checkpoint`, for weights that are not those that a model has at present."""
    folder = require_path("folder", folder)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):  # pyright: ignore[reportUnnecessaryIsInstance]
        refuse("dtype", "a floating dtype of torch, or None", dtype)
    tensors: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        stored = tensor.detach().to(device="cpu", dtype=dtype).contiguous()
        if not bool(stored.isfinite().all()):
            raise InputError(f"weight {name} is not finite in {stored.dtype}; refusing to write it to {folder}")
        tensors[name] = stored
    values = config.to_dict() | ({} if extra is None else {"extra": extra})
    content = (json.dumps(values, indent=2) + "\n").encode()
    written = safetensors.torch.save(tensors)
    replace_files(folder, {WEIGHTS: written, CONFIG: content})


def load_checkpoint(folder: str | os.PathLike[str]) -> LanguageModel:
    """Reads a model that `save_checkpoint` wrote.

    Args:
        folder: With config.json and model.safetensors.

    Returns:
        The model on the CPU in evaluation mode; half precision weights are upcast to float32.

    Raises:
        FileError: A file is missing, damaged, of another version, or the two do not fit.
    """
    folder = require_path("folder", folder)
    path = folder / CONFIG
    try:
        values: Any = json.loads(path.read_bytes())
        path = folder / WEIGHTS
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{path} must be that of a model, got {error!r}. Copy or train the model again.") from error
    if isinstance(values, dict):
        values = {name: value for name, value in cast("dict[str, Any]", values).items() if name != "extra"}
    config = ModelConfig.from_dict(values, str(folder / CONFIG))
    try:
        model = LanguageModel(config, torch.Generator())
        dtypes = {tensor.dtype for tensor in tensors.values()}
        model = model.to(torch.float64 if torch.float64 in dtypes else torch.float32)
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FileError(f"{path} does not fit its {CONFIG}: the two are not of one model ({reason})") from error
    return model.eval()
