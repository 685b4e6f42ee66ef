"""A trained text model as a small folder: weights in float16 and the record of how they came about."""

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import tokenizers
import torch

from statesize.mixers.checkpoint import load_checkpoint, replace_file, save_checkpoint
from statesize.tasks.ngram import fit_kneser_ney, mean_nats
from statesize.tasks.text import TextTask
from statesize.training.config import TrainingConfig
from statesize.training.loop import evaluate
from statesize.training.record import StepRecord, TrainingRecord
from statesize.version import __version__

CURVE_POINTS = 200
"""Largest number of points of the training curve in training.json; each is the mean over its steps."""


def export_text_model(
    record: TrainingRecord, task: TextTask, config: TrainingConfig, folder: Path, command: str, corpus_sha256: str
) -> dict[str, Any]:
    """Writes the best weights of a run in float16, evaluates what was written, and compares it with n-gram models.

    Args:
        record: The finished run.
        task: The text that it was trained on.
        config: Settings of the run.
        folder: Receives config.json, model.safetensors and training.json.
        command: Command line that makes this run.
        corpus_sha256: Hash of the corpus.

    Returns:
        What training.json holds: command, settings, versions, data, the held-out report of the float16 weights
        (evaluated in float32), those of unigram and trigram models with interpolated Kneser–Ney smoothing over the
        same tokens, and the loss curves.
    """
    save_checkpoint(load_checkpoint(record.folder / "best"), folder, dtype=torch.float16)
    model = load_checkpoint(folder)
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
        "versions": {
            "statesize": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "tokenizers": tokenizers.__version__,
        },
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
    replace_file(folder / "training.json", (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    return result


def _thinned(steps: tuple[StepRecord, ...]) -> list[dict[str, float]]:
    """Means of the training loss over at most CURVE_POINTS runs of equal length, at the last step of each."""
    width = max(-(-len(steps) // CURVE_POINTS), 1)
    parts = [steps[start : start + width] for start in range(0, len(steps), width)]
    return [{"step": part[-1].step, "loss": round(sum(step.loss for step in part) / len(part), 5)} for part in parts]
