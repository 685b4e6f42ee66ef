"""Training: one loop, its settings and its record; where decays start."""

from statesize.training.config import TrainingConfig
from statesize.training.in_memory import train_in_memory
from statesize.training.initialisation import Initialisation, MixerInitialisation, initialise
from statesize.training.loop import train
from statesize.training.mixer_calls import MixerCall, mixer_calls
from statesize.training.record import StepRecord, TrainingRecord
from statesize.training.regularisation import Regularisation, identity_distance, utilisation_distance
from statesize.training.step import DivergenceError, evaluate

__all__ = [
    "DivergenceError",
    "Initialisation",
    "MixerCall",
    "MixerInitialisation",
    "Regularisation",
    "StepRecord",
    "TrainingConfig",
    "TrainingRecord",
    "evaluate",
    "identity_distance",
    "initialise",
    "mixer_calls",
    "train",
    "train_in_memory",
    "utilisation_distance",
]
