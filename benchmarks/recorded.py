"""Documents of benchmarks that take long: what a document has is not done again, and it is written after each row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.prose import held_out
from statesize.adapters.models.model_state import tensors_sha256
from statesize.io.files import replace_file
from statesize.models.load import LoadedModel
from statesize.texts.tokens import AnyTokenizer, encode

Row = dict[str, Any]


def finish(
    path: Path,
    wanted: Iterable[tuple[Row, Callable[[], Row]]],
    made: Callable[[list[Row]], Row],
    told: Callable[[Row], object] = lambda row: None,
) -> None:
    """Do what no row has, and write the document after each: what names a row, and what gives the rest of it."""
    torch.set_num_threads(1)
    rows: list[Row] = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    for name, run in wanted:
        if not any(name.items() <= row.items() for row in rows):
            rows.append(name | run())
            replace_file(path, (json.dumps(made(rows)) + "\n").encode())
            told(rows[-1])


def of_each(models: Sequence[str], run: Callable[[str], Row]) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """A row per model, by the name of its file."""
    return (({"file": Path(model).stem}, partial(run, model)) for model in models)


def weights_of(loaded: LoadedModel) -> Row:
    """Which weights were read, and where they come from."""
    return {"weights": tensors_sha256(loaded.model.state_dict()), "source": loaded.source}


def prose(tokenizer: AnyTokenizer | None) -> Tensor:
    """The held-out documents as one text, (L,), whatever stands between documents for the model."""
    return torch.tensor(encode(tokenizer, "\n\n".join(held_out())))  # pyright: ignore[reportArgumentType]


def pep_pieces(folder: Path, piece: slice, least_bytes: int = 0) -> list[str]:
    """A piece of each of the files pep-*.rst of github.com/python/peps that are longer, by their names."""
    texts = [path.read_text("utf-8") for path in sorted(folder.glob("pep-*.rst"))]
    return [text[piece] for text in texts if len(text.encode()) > least_bytes]


def is_prose(text: str, least: float) -> bool:
    """Whether a text has more than so many letters and spaces."""
    return len(re.findall("[a-zA-Z ]", text)) > least


def short(row: Row) -> str:
    """The first word of a model's name."""
    return str(row["file"]).partition("-")[0]
