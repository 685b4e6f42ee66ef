"""A trained text model as a small folder: weights in float16 and the record of how they came about."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import tokenizers
import torch

from statesize.errors import FileError
from statesize.io.files import check_writable, os_errors, replace_file, replace_folder
from statesize.lab.mixers.checkpoint import load_checkpoint, save_checkpoint
from statesize.lab.tasks.language.ngram import fit_kneser_ney, mean_nats
from statesize.lab.tasks.language.text import TextTask
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.record import StepRecord, TrainingRecord
from statesize.lab.training.step import evaluate
from statesize.models.files import DIGEST, FILE, write_tokenizer
from statesize.version import installed

CURVE_POINTS = 200
"""Largest number of points of the training curve in training.json; each is the mean over its steps."""


EXPORTED = frozenset({"config.json", "model.safetensors", "training.json", FILE, DIGEST})
"""Names of the files of an export."""


def check_export(folder: Path) -> None:
    """Refuses a path where an export cannot or must not be written; run it before the training."""
    folder = folder.resolve()
    with os_errors(f"cannot write {folder}", "Give a folder, new or empty"):
        names = {path.name for path in folder.iterdir()} if folder.exists() else set[str]()
        if names and not ("training.json" in names and names <= EXPORTED):
            raise FileError(f"{folder} is a folder that holds no export; it is left alone. Give another name")
        if folder.is_mount():
            raise FileError(f"export must be a folder in a file system, got {folder}, a mount point. Give one in it.")
        check_writable(folder.parent)


def export_text_model(
    record: TrainingRecord,
    task: TextTask,
    tokenizer: tokenizers.Tokenizer,
    config: TrainingConfig,
    folder: Path,
    command: str,
    corpus_sha256: str,
) -> dict[str, Any]:
    """Evaluates a run's best weights in float16, compares them with n-gram models, and writes it all to a folder."""
    # The folder appears, or replaces an earlier export, at once and whole.
    check_export(folder)
    # Through float16, so that what is evaluated is what will be read.
    model = load_checkpoint(record.folder / "best").half().float()
    held_out = evaluate(model, task, config.batch_size)
    baselines: dict[str, dict[str, float]] = {}
    for name, order in (("unigram", 1), ("trigram", 3)):
        counted = fit_kneser_ney(task.train_tokens, order, task.vocabulary_size)
        report = task.report(mean_nats(counted, task.held_out_tokens), accuracy=0.0)
        baselines[name] = {key: report[key] for key in ("loss", "bits_per_byte")}
    result: dict[str, Any] = {
        "command": command,
        "training": dataclasses.asdict(config),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": "float16",
        "versions": installed("torch", "tokenizers"),
        "data": {
            "corpus_sha256": corpus_sha256,
            "train_tokens": task.train_tokens.numel(),
            "held_out_tokens": task.held_out_tokens.numel(),
            "held_out_bytes": task.held_out_bytes,
            "length": task.length,
        },
        "best_step": record.best_step,
        "held_out": held_out,
        "baselines": baselines,
        "curve": _thinned(record.steps),
        "held_out_curve": [{"step": step.step, **step.held_out} for step in record.steps if step.held_out is not None],
        "seconds": round(sum(step.seconds for step in record.steps), 1),
    }

    def write(target: Path) -> None:
        save_checkpoint(model, target, dtype=torch.float16)
        replace_file(target / "training.json", (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
        write_tokenizer(target, tokenizer)

    check_export(folder)
    target = folder.resolve()
    with os_errors(f"cannot write {target}", "Give a writable folder"):
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(target, write)
    return result


def _thinned(steps: tuple[StepRecord, ...]) -> list[dict[str, float]]:
    """Means of the training loss over at most CURVE_POINTS runs of equal length, at the last step of each."""
    width = max(-(-len(steps) // CURVE_POINTS), 1)
    parts = [steps[start : start + width] for start in range(0, len(steps), width)]
    return [{"step": part[-1].step, "loss": round(sum(step.loss for step in part) / len(part), 5)} for part in parts]
