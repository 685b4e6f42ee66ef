"""Training: one loop, its settings and its record; where decays start."""

from statesize.training.config import TrainingConfig
from statesize.training.in_memory import train_in_memory
from statesize.training.initialisation import Initialisation, MixerInitialisation, initialise
from statesize.training.loop import train
from statesize.training.record import StepRecord, TrainingRecord
from statesize.training.step import DivergenceError, evaluate

__all__ = [
    "DivergenceError",
    "Initialisation",
    "MixerInitialisation",
    "StepRecord",
    "TrainingConfig",
    "TrainingRecord",
    "evaluate",
    "initialise",
    "train",
    "train_in_memory",
]
