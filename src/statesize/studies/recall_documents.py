"""Texts of the bundled models: prose for those that read text, re-binding recall for the small ones."""

from __future__ import annotations

from typing import cast

from statesize import zoo
from statesize.tasks.rebinding import Rebinding
from statesize.tasks.registry import build_task


def default_texts(model: str) -> list[str]:
    """What a model reads if no text is given.

    Args:
        model: Its name.

    Returns:
        Documents of re-binding recall for `zoo.recall_names()`, else the bundled documents.
    """
    return recall_texts(model) if model in zoo.recall_names() else zoo.documents()


def trained_length(model: str) -> int:
    """Tokens of the sequences that a model is evaluated on.

    Args:
        model: Its name.

    Returns:
        Those that a recall model was trained on, else 256, as for the bundled text models.
    """
    return _task(model).length if model in zoo.recall_names() else 256


def scored_tokens(model: str) -> frozenset[int] | None:
    """The tokens that a model was trained to predict.

    Args:
        model: Its name.

    Returns:
        Of a recall model values and `none`, which are answers; None for all.
    """
    if model not in zoo.recall_names():
        return None
    task = _task(model)
    return frozenset(range(task.keys, task.none + 1))


def recall_texts(model: str) -> list[str]:
    """The held-out documents of the task that a recall model was trained on.

    Args:
        model: One of `zoo.recall_names()`.

    Returns:
        Words such as "k3 v7 k0 v2 k3 v7 k9 none", without `<eos>`.
    """
    task, tokenizer = _task(model), zoo.load(model)[1]
    inputs, _ = next(task.held_out(task.held_out_sequences))
    documents = inputs.view(-1, task.document_length)[:, :-1]
    words = {token: word for word, token in tokenizer.get_vocab().items()}
    return [" ".join(words[token] for token in document) for document in cast("list[list[int]]", documents.tolist())]


def _task(model: str) -> Rebinding:
    return cast("Rebinding", build_task(zoo.record(model)["task"]))
