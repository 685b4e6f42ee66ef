"""The models of a study of texts, each with the documents as its own tokenizer reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn

from statesize.errors import FileError, InputError
from statesize.lab import zoo
from statesize.lab.studies.delimiters.corpus import DocumentCorpus, make_corpus
from statesize.lab.tasks.rebinding import Rebinding
from statesize.lab.tasks.registry import build_task
from statesize.models.load import load_model, load_tokenizer, training_record
from statesize.texts.rows import Document


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that is loaded when its turn comes."""

    name: str
    corpus: DocumentCorpus
    length: int  # of the sequences that it predicts: as it was trained on recall, else 256
    scored: frozenset[int] | None  # ids of the tokens that it was trained to predict, the answers; None for all
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
    """The models, named as for `load_model`, with at most so many documents each; by default `default_texts`."""
    if len(set(models)) < len(models):
        raise InputError(f"models must differ, got {', '.join(models)}. Name each once.")
    named = {name: Path(name).absolute().name if Path(name).is_dir() else name for name in models}
    if len(set(named.values())) < len(models):
        named = {name: name for name in models}
    options = {name: loading[name] for name in ("revision", "trust_remote_code") if name in loading}
    chosen: list[Subject] = []
    for name in models:
        tokenizer, task = load_tokenizer(name, **options), _trained_task(name)
        try:
            read = default_texts(name) if texts is None else texts
            corpus = make_corpus(read, tokenizer, delimiter, special_tokens=special_tokens, note=note)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        length = 256 if task is None else task.length
        scored = None if task is None else frozenset(range(task.keys, task.none + 1))
        chosen.append(Subject(named[name], corpus.shortened(documents), length, scored, partial(_model, name, loading)))
    return chosen


def _model(name: str, loading: dict[str, Any]) -> nn.Module:
    return load_model(name, **loading).model


def default_texts(model: str) -> list[str]:
    """The default texts of a model.

    Args:
        model: A name or a folder.

    Returns:
        The held-out documents of re-binding recall, such as "k3 v7 k0 v2 k3 v7 k9 none", for models that were trained
        on it, else the bundled documents; without `<eos>`.
    """
    task = _trained_task(model)
    if task is None:
        return zoo.documents()
    inputs, _ = next(task.held_out(task.held_out_sequences))
    documents = cast("list[list[int]]", inputs.view(-1, task.document_length)[:, :-1].tolist())
    return [" ".join(task.words[token] for token in document) for document in documents]


def _trained_task(model: str) -> Rebinding | None:
    """The task of re-binding recall that a model was trained on, None for others; a FileError for a damaged record."""
    task = training_record(model).get("task")
    if not isinstance(task, dict) or cast("dict[str, Any]", task).get("name") != "rebinding":
        return None
    try:
        return cast("Rebinding", build_task(cast("dict[str, Any]", task)))
    except InputError as error:
        raise FileError(f"{model}/training.json holds no settings of re-binding recall: {error}") from error
