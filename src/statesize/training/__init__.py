"""Training: one loop, its settings and its record."""

from statesize.training.config import TrainingConfig
from statesize.training.in_memory import train_in_memory
from statesize.training.loop import train
from statesize.training.record import StepRecord, TrainingRecord
from statesize.training.step import DivergenceError, evaluate

__all__ = [
    "DivergenceError",
    "StepRecord",
    "TrainingConfig",
    "TrainingRecord",
    "evaluate",
    "train",
    "train_in_memory",
]
