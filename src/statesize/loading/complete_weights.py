"""Whether a model of transformers is the whole of a checkpoint: no weight missing, none of another shape."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from statesize.errors import FileError
from statesize.files import parse_json, read_limited
from statesize.untrusted import check_header

_NAMED = 4  # weights in a message, of what may be thousands
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def check_files(folder: Path) -> None:
    """Refuse weights that lie outside their folder, and files whose headers are too long; before anything is read."""
    for weights in folder.glob("*.safetensors"):
        check_header(weights)
    for name in _INDICES:
        if not (folder / name).is_file():
            continue
        try:
            index = parse_json(read_limited(folder / name))
            shards = set(cast("dict[str, dict[str, str]]", index)["weight_map"].values())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(f"{folder / name} must map weights to files in its weight_map ({error}).") from error
        for shard in shards:
            if Path(str(shard)).name != shard:
                raise FileError(f"{folder / name} must name files of its own folder, got {shard!r}, which is not read.")


def check_loaded(name: str, model: nn.Module, loaded: Mapping[str, Collection[Any]]) -> str:
    """Refuse a model with weights that its checkpoint does not hold; what it holds beside them, in a sentence."""
    # `loaded` is what transformers tells with `output_loading_info`: tied weights and computed buffers are not missing.
    total = sum(1 for _ in model.named_parameters())
    if missing := sorted(loaded["missing_keys"]):
        raise FileError(
            f"{name} lacks {len(missing)} of the model's {total} weights, which would be random numbers: "
            f"{_first(missing)}. Give a checkpoint with all of them, and the config.json that belongs to it."
        )
    if mismatched := sorted(loaded["mismatched_keys"]):
        weight, stored, expected = mismatched[0]
        raise FileError(
            f"{name} holds {len(mismatched)} of the model's weights in another shape, which would be random numbers: "
            f"{weight} is {tuple(stored)} and must be {tuple(expected)}. Give the config.json that belongs to it."
        )
    if not (unused := sorted(loaded["unexpected_keys"])):
        return ""
    sentence = f"{len(unused)} weights of the checkpoint belong to no part of the model and went unused: "
    sentence += _first(unused)
    warnings.warn(f"{name}: {sentence}.", stacklevel=2)
    return sentence


def _first(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
