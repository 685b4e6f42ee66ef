"""Fine-tuning on the calibration text, of a cut model and of its control alike."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.compression.shrinking import with_weights
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.tasks.language.text import TextTask
from statesize.lab.tasks.task import IGNORED
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.loop import train_in_memory

_RATE = 1e-3


def fine_tuned(model: LanguageModel, tokens: Tensor, length: int, steps: int) -> LanguageModel:
    """A copy after some steps on windows of tokens (N,), the same ones for every model."""
    copy = with_weights(model.config, model.state_dict())
    task = TextTask(tokens, tokens[:2], min(length, len(tokens) - 1), 1, model.config.vocabulary_size)
    config = TrainingConfig(steps=steps, rate=_RATE, weight_decay=0.01, device=str(model.norm.weight.device))
    with torch.enable_grad():
        for _ in train_in_memory(copy, task, config):
            pass
    return copy.eval()


def text_of(targets: Tensor) -> Tensor:
    """The tokens of windows (W, L), one after another, (N,)."""
    return targets[targets != IGNORED]
