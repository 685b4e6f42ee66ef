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
# Files that hold the vocabularies of tokenizers of transformers.
_VOCABULARIES = (FILE, "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "*.tiktoken", "*.bpe")


def check_loaded(name: str, model: nn.Module, loaded: Mapping[str, Collection[Any]]) -> str:
    """Refuse a model with weights that its checkpoint does not hold; say which of the checkpoint it does not use.

    Args:
        name: The checkpoint.
        model: The model; its tied weights and computed buffers are not missing.
        loaded: The `output_loading_info` of transformers.

    Returns:
        A sentence about unused weights, of which it warns; "" without any.

    Raises:
        FileError: Some are missing, or have another shape.
    """
    missing, mismatched = sorted(loaded["missing_keys"]), sorted(loaded["mismatched_keys"])
    if missing or mismatched:
        total, wrong = sum(1 for _ in model.named_parameters()), len(missing) + len(mismatched)
        shapes = [f"{weight} of shape {tuple(stored)}, not {tuple(wanted)}" for weight, stored, wanted in mismatched]
        raise FileError(
            f"{name} lacks {wrong} of the model's {total} weights, which would be random numbers: "
            f"{listed([*missing, *shapes])}. Give a checkpoint with all of them, and its own config.json."
        )
    if not (unused := sorted(loaded["unexpected_keys"])):
        return ""
    sentence = f"No part of the model uses {counted(len(unused), 'weight')} of the checkpoint: {listed(unused)}"
    warn_caller(f"{name}: {sentence}.")
    return sentence


def check_stored(name: str, folder: Path, model: nn.Module, unused: Collection[str]) -> None:
    """Refuse weights in integers or in floats of 8 bits, which transformers takes as they are, without their scales."""
    parameters = [parameter for parameter, _ in model.named_parameters()]
    for shard in sorted({*folder.glob("model.safetensors"), *folder.glob("model-*-of-*.safetensors")}):
        with safetensors.safe_open(shard, "pt") as stream:  # pyright: ignore[reportUnknownVariableType]
            file = cast("Any", stream)
            dtypes: dict[str, str] = {weight: file.get_slice(weight).get_dtype() for weight in file.keys()}
        for weight, dtype in dtypes.items():
            # Masks of older models, which are no parameters, are of bytes.
            of_model = weight not in unused and any(key.endswith(weight) or weight.endswith(key) for key in parameters)
            if of_model and dtype not in _WHOLE:
                raise FileError(
                    f"{name} must hold its weights in floating point of 16 bits or more, got {weight} as {dtype}: "
                    "quantised, without the scales that would take it back. Give the checkpoint that it was made from."
                )


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has files of a tokenizer, intact or not."""
    return any(True for pattern in _VOCABULARIES for _ in folder.glob(pattern))


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write tokenizer.json."""
    replace_file(folder / FILE, (tokenizer.to_str(pretty=True) + "\n").encode())


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of tokenizer.json, which must be there."""
    try:
        return Tokenizer.from_file(str(folder / FILE))  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:  # the class that tokenizers raises has no narrower name
        raise FileError(
            f"{folder / FILE} is damaged ({error}). Copy it again from where the model was made."
        ) from error
