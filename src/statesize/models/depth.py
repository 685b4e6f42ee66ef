"""How many layers a model has, by the header of its file or its config.json, before what loads models is imported."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO, cast

from statesize.check import refuse
from statesize.io.files import is_gguf, parse_json, read_limited

_MOST_HEADER = 2**20
"""Bytes of a GGUF file in which its depth is looked for; it stands before the vocabulary."""
_NUMBERS = ("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d")
"""Formats of the numbers of a GGUF header, by the code of their type."""
_STRING, _ARRAY = 8, 9


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
            with path.open("rb") as stream:
                return _gguf_depth(stream)
        config: Any = parse_json(read_limited(path / "config.json"))
        text = cast("dict[str, Any]", config.get("text_config") or config)
        return str(config["model_type"]), int(text.get("num_hidden_layers") or text["n_layer"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, struct.error, IndexError, RecursionError):
        return None


def _gguf_depth(stream: BinaryIO) -> tuple[str, int] | None:
    """The architecture of a GGUF file and its number of blocks."""

    def number(form: str) -> Any:
        (value,) = struct.unpack(f"<{form}", stream.read(struct.calcsize(f"<{form}")))
        return value

    def string() -> str:
        if (size := number("Q")) > _MOST_HEADER:
            raise ValueError("This is no header.")
        return stream.read(size).decode()

    def value_of(code: int) -> Any:
        if stream.tell() > _MOST_HEADER:
            raise ValueError("It is not where it is expected.")
        if code == _ARRAY:
            element, size = number("I"), number("Q")
            for _ in range(size):
                value_of(element)
        return string() if code == _STRING else None if code == _ARRAY else number(_NUMBERS[code])

    stream.seek(16)  # behind the magic, the version and the number of tensors
    kind, depth = "", 0
    for _ in range(number("Q")):
        key = string()
        value = value_of(number("I"))
        kind = value if key == "general.architecture" else kind
        depth = value if key == f"{kind}.block_count" else depth
        if kind and depth:
            return kind, depth
    return None
