"""What models read if no text is given: re-binding recall for those that were trained on it, prose for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from statesize import zoo
from statesize.errors import FileError, InputError
from statesize.files import parse_json, read_limited
from statesize.tasks.rebinding import Rebinding
from statesize.tasks.registry import build_task


def default_texts(model: str) -> list[str]:
    """What a model reads if no text is given.

    Args:
        model: A name or a folder.

    Returns:
        The held-out documents of re-binding recall, such as "k3 v7 k0 v2 k3 v7 k9 none", for models that were trained
        on it, else the bundled documents; without `<eos>`.
    """
    task = trained_task(model)
    if task is None:
        return zoo.documents()
    inputs, _ = next(task.held_out(task.held_out_sequences))
    documents = cast("list[list[int]]", inputs.view(-1, task.document_length)[:, :-1].tolist())
    return [" ".join(task.words[token] for token in document) for document in documents]


def trained_length(model: str) -> int:
    """Tokens of the sequences that a model is evaluated on.

    Args:
        model: A name or a folder.

    Returns:
        Those that it was trained on if that was re-binding recall, else 256, as for the bundled text models.
    """
    task = trained_task(model)
    return 256 if task is None else task.length


def scored_tokens(model: str) -> frozenset[int] | None:
    """The tokens that a model was trained to predict.

    Args:
        model: A name or a folder.

    Returns:
        Of a recall model values and `none`, which are answers; None for all.
    """
    task = trained_task(model)
    return None if task is None else frozenset(range(task.keys, task.none + 1))


def trained_task(model: str) -> Rebinding | None:
    """The task of re-binding recall that a model was trained on.

    Args:
        model: A name or a folder.

    Returns:
        The task, or None for all other models.

    Raises:
        FileError: If a folder's record of its training says that task and not how it was.
    """
    if model in zoo.recall_names():
        return cast("Rebinding", build_task(zoo.record(model)["task"]))
    path = Path(model) / "training.json"
    try:
        record = parse_json(read_limited(path))
    except (OSError, ValueError):
        return None
    task = cast("dict[str, Any]", record).get("task") if isinstance(record, dict) else None
    if not isinstance(task, dict) or cast("dict[str, Any]", task).get("name") != "rebinding":
        return None
    try:
        return cast("Rebinding", build_task(cast("dict[str, Any]", task)))
    except InputError as error:
        raise FileError(f"{path} holds no settings of re-binding recall: {error}") from error
