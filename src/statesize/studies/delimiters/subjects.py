"""The models of a study of texts, each with the documents as its own tokenizer reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from statesize.errors import InputError
from statesize.loading.models import load_model, load_tokenizer
from statesize.studies.delimiters.corpus import Corpus, make_corpus
from statesize.studies.delimiters.recall_documents import default_texts, scored_tokens, trained_length
from statesize.texts.rows import Document


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that is loaded when its turn comes.

    Attributes:
        name: What tables call it.
        corpus: What it reads.
        length: Tokens of the sequences that it is asked to predict.
        scored: Ids of the tokens that it was trained to predict, or None for all.
        load: Gives the model.
    """

    name: str
    corpus: Corpus
    length: int
    scored: frozenset[int] | None
    load: Callable[[], nn.Module]


def subjects(
    models: Sequence[str],
    texts: Sequence[Document] | None,
    delimiter: str,
    documents: int,
    loading: dict[str, Any],
    *,
    special_tokens: bool = False,
    note: Callable[[str], None] | None = None,
) -> list[Subject]:
    """The models and what they read; models that are not there are told as `load_model` does.

    Args:
        models: As `load_model` takes them.
        texts: The documents; None takes what `default_texts` gives.
        delimiter: As `find_delimiter` takes it.
        documents: How many documents are read at most.
        loading: Options of `load_model`.
        special_tokens: As for `make_corpus`.
        note: Likewise.

    Returns:
        One for each model.

    Raises:
        InputError: If a model is named twice, or the text has no such delimiter for the tokenizer of one.
    """
    if len(set(models)) < len(models):
        raise InputError(f"a model is named twice in {', '.join(models)}; name each once")
    named = {name: Path(name).absolute().name if Path(name).is_dir() else name for name in models}
    if len(set(named.values())) < len(models):
        named = {name: name for name in models}
    options = {name: loading[name] for name in ("revision", "trust_remote_code") if name in loading}
    found: list[Subject] = []
    for name in models:
        tokenizer = load_tokenizer(name, **options)
        try:
            read = default_texts(name) if texts is None else texts
            corpus = make_corpus(read, tokenizer, delimiter, special_tokens=special_tokens, note=note)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        load, length = partial(_model, name, loading), trained_length(name)
        found.append(Subject(named[name], corpus.shortened(documents), length, scored_tokens(name), load))
    return found


def _model(name: str, loading: dict[str, Any]) -> nn.Module:
    return load_model(name, **loading).model
