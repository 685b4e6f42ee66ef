"""Pieces of one length out of texts, for what is measured in fixed windows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.texts.inputs import Inputs, sequences
from statesize.texts.rows import evenly
from statesize.texts.tokens import AnyTokenizer, join_documents, special_ids


def whole_texts(inputs: Inputs | None, tokenizer: AnyTokenizer | None) -> list[Tensor]:
    """The sequences of the caller, (L,) each, or all bundled documents as one."""
    if inputs is not None:
        return list(sequences(inputs, tokenizer)[0])
    if tokenizer is None:
        raise InputError("inputs must be token ids for a model without a tokenizer, got none. Give token ids, or both.")
    return [join_documents(tokenizer, zoo.documents(), "eos" not in special_ids(tokenizer)[1])]


def excerpts_of(texts: Sequence[Tensor], size: int, most: int) -> list[Tensor]:
    """Pieces of texts that do not overlap, of so many tokens, from all parts."""
    return evenly([ids[at : at + size] for ids in texts for at in range(0, len(ids) - size + 1, size)], most)
