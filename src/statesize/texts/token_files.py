"""Token ids out of a file, for models without a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.errors import FileError
from statesize.io.files import os_errors, parse_json, read_limited, require_regular
from statesize.texts import rows
from statesize.texts.rows import read_lines

_DO = "Give a JSON list of token ids, or one such list on each line"


def read_token_ids(path: Path, vocabulary: int | None) -> Iterator[Tensor]:
    """The lists of token ids of a file; lines are read as far as they are used, (L,) int64 each, L ≥ 2."""
    any_read = False
    with os_errors(f"{path} cannot be read as token ids", f"{_DO}."):
        for where, ids in _lists(path):
            any_read = True
            yield torch.tensor(_checked(ids, where, vocabulary), dtype=torch.int64)
    if not any_read:
        raise FileError(f"{path} is empty. {_DO}.")


def vocabulary_size(model: nn.Module) -> int | None:
    """How many tokens a model knows; None where its configuration does not say."""
    return configured_vocabulary(getattr(model, "config", None))


def configured_vocabulary(config: Any) -> int | None:
    """How many tokens a model of a configuration knows; None where it does not say."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = getattr(text, "vocabulary_size", getattr(text, "vocab_size", None))
    return size if isinstance(size, int) else None


def _lists(path: Path) -> Iterator[tuple[str, object]]:
    """Items that should be lists of ids, each with its line or index."""
    begun = False
    with require_regular(path).open("rb") as stream:
        for number, line in enumerate(read_lines(stream), 1):
            if line is not None and not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                values = None if line is None else _parsed(line, where)
            except FileError:
                if begun:
                    raise
                # A list over several lines.
                yield from _split(_parsed(read_limited(path, rows.MOST_LINE), str(path)), where, str(path))
                return
            begun = True
            yield from _split(values, where, where)


def _parsed(content: bytes, where: str) -> object:
    """The values of one JSON document."""
    try:
        return parse_json(content.decode("utf-8-sig"))
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"{where} must be JSON, got what is none ({reason}). {_DO}.") from error


def _split(values: object, line: str, where: str) -> Iterator[tuple[str, object]]:
    """One list of ids, or the lists of a list."""
    if not isinstance(values, list):
        raise FileError(f"{line} must be a list of token ids, got {_shown(values)}. {_DO}.")
    items = cast("list[object]", values)
    if items and all(isinstance(item, list) for item in items):
        yield from ((f"{where}, list {number}", item) for number, item in enumerate(items, 1))
    else:
        yield line, items


def _checked(ids: object, where: str, vocabulary: int | None) -> list[int]:
    """A list of ids, or an error that names the first item that is none."""
    items = list(cast("Iterable[object]", ids))
    most = 2**63 if vocabulary is None else vocabulary
    for index, item in enumerate(items):
        if type(item) is not int or not 0 <= item < most:
            allowed = "from 0 on" if vocabulary is None else f"from 0 to {vocabulary - 1}"
            raise FileError(
                f"{where}, index {index} must be a token id {allowed}, got {_shown(item)}. Make the ids with the "
                "tokenizer that the model was trained with."
            )
    if len(items) < 2:
        raise FileError(f"{where} must hold at least 2 token ids, got {len(items)}. Leave the list out, or give more.")
    return cast("list[int]", items)


def _shown(value: object) -> str:
    """A value as an error shows it."""
    kind = type(value).__name__
    return f"a {kind}" if kind in {"list", "dict"} else json.dumps(value)[:40]
