"""Training: one loop, its settings and its record."""

from statesize.training.config import TrainingConfig
from statesize.training.loop import evaluate, train
from statesize.training.record import StepRecord, TrainingRecord

__all__ = ["StepRecord", "TrainingConfig", "TrainingRecord", "evaluate", "train"]
