"""A model as a folder: config.json and model.safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from statesize.adapters.models.model_state import tensors_sha256
from statesize.check import refuse, require_kind, require_path
from statesize.errors import FileError, InputError
from statesize.io.files import replace_files
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_DIGEST = "sha256"


def save_checkpoint(
    model: LanguageModel,
    folder: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Writes a model's configuration and weights; those of another model that are there are replaced.

    An interruption leaves the old model, the new one, or a folder without config.json, which is refused when it is
    loaded; it never leaves the weights of one model with the configuration of another.

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
    written = safetensors.torch.save(tensors, metadata={_DIGEST: _digest(config, tensors)})
    replace_files(folder, {WEIGHTS: written, CONFIG: content})


def load_checkpoint(folder: str | os.PathLike[str]) -> LanguageModel:
    """Reads a model that `save_checkpoint` wrote.

    Args:
        folder: With config.json and model.safetensors.

    Returns:
        The model on the CPU in evaluation mode; half precision weights are upcast to float32.

    Raises:
        FileError: A file is missing, damaged, of another version, or the two do not belong together.
    """
    folder = require_path("folder", folder)
    config, path = _read_config(folder / CONFIG), folder / WEIGHTS
    if not path.is_file():
        raise FileError(f"{path} is missing; a model is a folder with {CONFIG} and {WEIGHTS}")
    try:
        digest = _check_shapes(path, config)
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)  # pyright: ignore[reportUnknownMemberType]
    except (safetensors.SafetensorError, OSError) as error:
        raise FileError(f"{path} is damaged or cut off ({error}); copy or train it again") from error
    if digest != _digest(config, tensors):
        raise FileError(f"{path} or its {CONFIG} is damaged: they are not what was written; copy or train it again")
    model = LanguageModel(config, torch.Generator())
    dtypes = {tensor.dtype for tensor in tensors.values()}
    model = model.to(torch.float64 if torch.float64 in dtypes else torch.float32)
    model.load_state_dict(tensors)
    return model.eval()


def _check_shapes(path: Path, config: ModelConfig) -> str | None:
    """Compares names and shapes in a file with a configuration, before anything is allocated; returns its digest."""
    with safetensors.safe_open(path, framework="pt") as stream:  # pyright: ignore[reportUnknownVariableType]
        file = cast("Any", stream)
        actual = {name: tuple(file.get_slice(name).get_shape()) for name in cast("list[str]", list(file.keys()))}
        digest = cast("dict[str, str]", file.metadata() or {}).get(_DIGEST)
    problem = f"{path} does not fit its {CONFIG}: the two are not of one model"
    # Each layer has weights of its own, so more layers than tensors cannot fit, and need not be built to see it.
    if config.layers > len(actual):
        raise FileError(f"{problem} ({config.layers} layers)")
    try:
        with torch.device("meta"):
            model = LanguageModel(config)
    except (RuntimeError, TypeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise FileError(f"{path.with_name(CONFIG)} describes a model that torch cannot build ({reason})") from error
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if expected != actual:
        names = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
        raise FileError(f"{problem}, first at {names[0]}")
    return digest


def _digest(config: ModelConfig, tensors: Mapping[str, Tensor]) -> str:
    return tensors_sha256(tensors, json.dumps(config.to_dict(), sort_keys=True))


def _read_config(path: Path) -> ModelConfig:
    if not path.is_file():
        raise FileError(f"{path} is missing; a model is a folder with {CONFIG} and {WEIGHTS}")
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise FileError(f"{path} is not JSON ({error}); copy or train the model again") from error
    if isinstance(values, dict):
        values = {name: value for name, value in cast("dict[str, object]", values).items() if name != "extra"}
    return ModelConfig.from_dict(values, str(path))
