"""Files of models: weights that are all there and in floating point, and the file of a tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import safetensors
from tokenizers import Tokenizer
from torch import nn

from statesize.errors import FileError
from statesize.io.callers import warn_caller
from statesize.io.files import replace_file
from statesize.io.text import counted, listed

FILE = "tokenizer.json"
"""The file of a tokenizer."""
_WHOLE = ("F64", "F32", "F16", "BF16")


def check_loaded(name: str, model: nn.Module, loaded: Mapping[str, Collection[Any]]) -> str:
    """Refuse a model with weights that its checkpoint lacks, or has in another shape; warn of those that go unused.

    Args:
        name: The checkpoint.
        model: The model; its tied weights and computed buffers are not missing.
        loaded: The `output_loading_info` of transformers.

    Returns:
        A sentence about unused weights; "" without any.

    Raises:
        FileError: Some are missing, or have another shape.
    """
    shapes = [f"{weight} of shape {tuple(stored)}" for weight, stored, _ in sorted(loaded["mismatched_keys"])]
    if wrong := [*sorted(loaded["missing_keys"]), *shapes]:
        total = sum(1 for _ in model.named_parameters())
        raise FileError(
            f"{name} lacks {len(wrong)} of the model's {total} weights, which would be random numbers: "
            f"{listed(wrong)}. Give a checkpoint with all of them, and its own config.json."
        )
    if not (unused := sorted(loaded["unexpected_keys"])):
        return ""
    sentence = f"No part of the model uses {counted(len(unused), 'weight')} of the checkpoint: {listed(unused)}"
    warn_caller(f"{name}: {sentence}.")
    return sentence


def check_stored(name: str, folder: Path, model: nn.Module) -> None:
    """Refuse weights in integers or in floats of 8 bits, which transformers takes as they are, without their scales."""
    parameters = [parameter for parameter, _ in model.named_parameters()]
    for shard in (*folder.glob("model.safetensors"), *sorted(folder.glob("model-*-of-*.safetensors"))):
        with safetensors.safe_open(shard, "pt") as stream:  # pyright: ignore[reportUnknownVariableType]
            file = cast("Any", stream)
            for weight in file.keys():
                dtype = file.get_slice(weight).get_dtype()
                # Masks of older models are of bytes, and no parameters; a model may be stored without its head.
                if dtype not in _WHOLE and any(key.endswith(weight) or weight.endswith(key) for key in parameters):
                    raise FileError(
                        f"{name} must hold its weights in floating point of 16 bits or more, got {weight} as {dtype}: "
                        "quantised, without its scales. Give the checkpoint that it was made from."
                    )


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write tokenizer.json."""
    replace_file(folder / FILE, (tokenizer.to_str(pretty=True) + "\n").encode())


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of tokenizer.json, which must be there."""
    try:
        return Tokenizer.from_file(str(folder / FILE))  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:  # the class that tokenizers raises has no narrower name
        raise FileError(f"{folder / FILE} must be a tokenizer, got {error}. Copy it again.") from error
