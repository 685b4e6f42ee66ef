"""What benchmarks read, and the weights that read it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statesize.adapters.models.model_state import tensors_sha256
from statesize.lab import zoo
from statesize.models.load import LoadedModel
from statesize.texts.tokens import AnyTokenizer, encode

Row = dict[str, Any]


def held_out() -> tuple[str, ...]:
    """The bundled documents, which no bundled model has seen."""
    return tuple(zoo.documents())


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
