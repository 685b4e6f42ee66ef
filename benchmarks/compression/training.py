"""Small models over seeds: `python -m benchmarks.compression.training FOLDER`; models that are there stay."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import prose
from benchmarks.recall_models import write_recall_model
from statesize.lab.mixers.checkpoint import save_checkpoint
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.corpus import Corpus, python_prose
from statesize.lab.tasks.text import TextTask
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.loop import train_in_memory

MIXERS = ("la", "wla", "gla")
SEEDS = 5
RECALL_SEEDS = 4
"""Seeds of the models of re-binding recall; those of seed 0 are bundled."""
LENGTH = 128
# The bundled models' settings with half their width and heads, for 1,200 steps of 1,024 tokens: what 15 models can have
# in an hour of one core.
SHAPE: dict[str, Any] = {"width": 64, "heads": 2, "layers": 4, "key_size": 32}
TRAINING: dict[str, Any] = {"steps": 1200, "batch_size": 8, "rate": 6e-3, "weight_decay": 0.1}


def main(folder: Path) -> None:
    """Trains what is missing, seed by seed."""
    torch.set_num_threads(1)
    corpus = python_prose()
    for seed in range(SEEDS):
        for mixer in MIXERS:
            place = folder / f"{mixer}-{seed}"
            if not place.exists():
                save_checkpoint(trained(mixer, seed, corpus), place)
                print(place, flush=True)
    for seed in range(1, RECALL_SEEDS):
        for mixer in MIXERS:
            if not (folder / f"recall-{mixer}-{seed}").exists():
                write_recall_model(mixer, folder, seed)


def trained(mixer: str, seed: int, corpus: Corpus) -> LanguageModel:
    """One model."""
    task = TextTask.from_corpus(corpus, prose.tokenizer(), LENGTH)
    config = ModelConfig(mixer, task.vocabulary_size, **SHAPE)
    model = LanguageModel(config, torch.Generator().manual_seed(seed))
    for _ in train_in_memory(model, task, TrainingConfig(seed=seed, **TRAINING)):
        pass
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]))
