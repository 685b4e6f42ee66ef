"""A model as a folder: config.json and model.safetensors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from statesize.errors import FileError, InputError
from statesize.mixers.config import ModelConfig
from statesize.mixers.model import LanguageModel


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: to a temporary name in the same folder, then moved.

    Args:
        path: File to write; its folder is made where it is missing.
        content: All of it.

    Raises:
        FileError: The folder cannot be made or written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}. Give a folder that can be written") from error


def save_checkpoint(
    model: LanguageModel,
    folder: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Writes a model's configuration and weights; files that are there are replaced whole.

    Args:
        model: The model.
        folder: Where; made where it is missing.
        dtype: Floating dtype of the stored weights; None keeps the model's.
        extra: JSON values to keep in config.json under "extra".

    Raises:
        InputError: A weight is not finite, or becomes so in `dtype`.
        FileError: The folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        stored = tensor.detach().to(device="cpu", dtype=dtype).contiguous()
        if not bool(stored.isfinite().all()):
            raise InputError(f"weight {name} is not finite in {stored.dtype}; refusing to write it to {folder}")
        tensors[name] = stored
    values = model.config.to_dict() | ({} if extra is None else {"extra": extra})
    replace_file(Path(folder) / "model.safetensors", safetensors.torch.save(tensors))
    replace_file(Path(folder) / "config.json", (json.dumps(values, indent=2) + "\n").encode())


def load_checkpoint(folder: str | os.PathLike[str]) -> LanguageModel:
    """Reads a model that `save_checkpoint` wrote.

    Args:
        folder: With config.json and model.safetensors.

    Returns:
        The model on the CPU in evaluation mode; half precision weights are upcast to float32.

    Raises:
        FileError: A file is missing, damaged, of another version, or the two do not belong together.
    """
    config = ModelConfig.from_dict(_read_config(Path(folder)), str(Path(folder) / "config.json"))
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise FileError(f"{path} is missing; a model is a folder with config.json and model.safetensors")
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)  # pyright: ignore[reportUnknownMemberType]
    except (safetensors.SafetensorError, OSError) as error:
        raise FileError(f"{path} is damaged or cut off ({error}); copy or train it again") from error
    model = LanguageModel(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != given:
        names = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise FileError(f"{path} does not fit its config.json, first at {names[0]}: the two are not of one model")
    dtypes = {tensor.dtype for tensor in tensors.values()}
    model = model.to(torch.float64 if torch.float64 in dtypes else torch.float32)
    model.load_state_dict(tensors)
    return model.eval()


def _read_config(folder: Path) -> object:
    path = folder / "config.json"
    if not path.is_file():
        raise FileError(f"{path} is missing; a model is a folder with config.json and model.safetensors")
    try:
        values: object = json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise FileError(f"{path} is not JSON ({error}); copy or train the model again") from error
    if isinstance(values, dict):
        return {name: value for name, value in cast("dict[str, object]", values).items() if name != "extra"}
    return values
