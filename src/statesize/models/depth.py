"""How many layers a model has, by the header of its file or its config.json, before its weights are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from statesize.check import refuse
from statesize.io.files import is_gguf, parse_json, read_limited


def check_depth(name: str, layers: Sequence[int | str] | int | str | None) -> None:
    """Refuse layers that a GGUF file or a folder of transformers cannot have; others are checked once it is loaded."""
    if layers is not None and (described := _described(Path(name))) is not None:
        refuse_beyond([layers] if isinstance(layers, int | str) else layers, *described)


def refuse_beyond(layers: Sequence[int | str], kind: str, depth: int | None) -> None:
    """Refuse layers by index that no model of so many layers, of a `model_type` of transformers, has."""
    # A layer has at most one mixer of each kind.
    most = (depth or 0) * _kinds().get(kind, 0)
    for layer in layers:
        if isinstance(layer, int) and most and not -most <= layer < most:
            refuse("layers", f"the model's mixers by name or by index 0 … {most - 1}", layer)


@cache
def _kinds() -> dict[str, int]:
    """How many kinds of mixers the models of a family have."""
    # The module that reads all of it imports torch.
    table = files("statesize").joinpath("adapters").joinpath("families.json").read_text(encoding="utf-8")
    return {family["name"]: len(family["mixers"]) for family in json.loads(table)["families"]}


def _described(path: Path) -> tuple[str, int] | None:
    """The `model_type` and the depth; None where they are not said as expected, which is told when it is loaded."""
    try:
        if is_gguf(path):
            # It imports torch.
            from statesize.models.files import gguf_metadata

            header = gguf_metadata(path)
            kind = str(header["general.architecture"])
            return kind, int(header[f"{kind}.block_count"])
        config: Any = parse_json(read_limited(path / "config.json"))
        text = cast("dict[str, Any]", config.get("text_config") or config)
        return str(config["model_type"]), int(text.get("num_hidden_layers") or text["n_layer"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, ImportError, RecursionError):
        return None
