"""Trains the bundled recall models: four siblings that answer re-bound keys, in seconds each."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from statesize.io.files import replace_file
from statesize.lab.mixers.checkpoint import load_checkpoint, save_checkpoint
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.rebinding import Rebinding
from statesize.lab.tasks.registry import task_settings
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.loop import train_in_memory
from statesize.lab.training.step import evaluate
from statesize.parallel.threads import one_torch_thread
from statesize.version import installed

TASK = Rebinding(held_out_sequences=512)
TRAINING = TrainingConfig(steps=600, batch_size=32, rate=8e-3, weight_decay=0.0)
MIXERS = ("sa", "la", "wla", "gla")
UNKNOWN = "<unk>"
_COMMAND = 'python -c "from benchmarks.recall_models import write_recall_model; write_recall_model({!r}, FOLDER{})"'
_CURVE_EVERY = 20


def recall_tokenizer() -> Tokenizer:
    """The tokenizer of the recall models: words k0, k1, … (keys), v0, v1, … (values), none, and `<eos>`.

    Returns:
        Its ids are those of the task; `<unk>`, for all other words, is the last.
    """
    words = {word: token for token, word in enumerate((*TASK.words, UNKNOWN))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in ("<eos>", UNKNOWN)])
    return tokenizer


def recall_config(mixer: str) -> ModelConfig:
    """The shape of a recall model.

    Args:
        mixer: One of `MIXERS`.

    Returns:
        Two layers of width 32 with two heads of 8 key channels, and decays that start at 0.958.
    """
    return ModelConfig(
        mixer,
        TASK.vocabulary_size + 1,
        width=32,
        heads=2,
        layers=2,
        key_size=8,
        mlp_factor=2,
        convolution_size=2,
        decay_bias=0.0,
    )


def train_recall_model(config: ModelConfig, seed: int) -> tuple[LanguageModel, list[float]]:
    """Train a model on the task of the bundled ones.

    Args:
        config: Its shape, such as that of `recall_config`.
        seed: Of the initial weights and the batches.

    Returns:
        The model in evaluation mode, and the loss of each step.
    """
    model = LanguageModel(config, torch.Generator().manual_seed(seed))
    losses = [step.loss for step in train_in_memory(model, TASK, dataclasses.replace(TRAINING, seed=seed))]
    return model.eval(), losses


def write_recall_model(mixer: str, folder: str | os.PathLike[str], seed: int = TRAINING.seed) -> dict[str, Any]:
    """Train a recall model on one thread and write it, in float16, with its record.

    The bundled ones were made so, each by the command that is kept in its training.json.

    Args:
        mixer: One of `MIXERS`.
        folder: The zoo; receives recall-MIXER/, or recall-MIXER-SEED/ for a seed that is not that of the bundled ones,
            with config.json, model.safetensors, tokenizer.json and training.json.
        seed: Of the initial weights and the batches.

    Returns:
        What training.json holds.
    """
    training, own = dataclasses.replace(TRAINING, seed=seed), seed != TRAINING.seed
    with one_torch_thread():
        started = time.thread_time()
        model, losses = train_recall_model(recall_config(mixer), seed)
        seconds = time.thread_time() - started
        place = Path(folder) / (f"recall-{mixer}-{seed}" if own else f"recall-{mixer}")
        save_checkpoint(model, place, dtype=torch.float16)
        # What is reported is what will be read.
        held_out = evaluate(load_checkpoint(place), TASK, 64)
    record: dict[str, Any] = {
        "command": _COMMAND.format(mixer, f", {seed}" if own else ""),
        "task": task_settings(TASK),
        "training": dataclasses.asdict(training),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": "float16",
        "versions": installed("torch", "tokenizers"),
        "held_out": held_out,
        "curve": [
            {"step": end, "loss": round(sum(losses[end - _CURVE_EVERY : end]) / _CURVE_EVERY, 5)}
            for end in range(_CURVE_EVERY, len(losses) + 1, _CURVE_EVERY)
        ],
        "seconds": round(seconds, 1),
    }
    replace_file(place / "training.json", (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    replace_file(place / "tokenizer.json", (recall_tokenizer().to_str(pretty=True) + "\n").encode())
    return record
