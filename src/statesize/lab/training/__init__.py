"""Training: one loop, its settings and its folder; students; terms of a loss."""

from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.distillation import Discrepancy, discrepancy, distil, operator_error, student_of
from statesize.lab.training.folder import RunFolder, StepRecord
from statesize.lab.training.loop import DivergenceError, evaluate, train
from statesize.lab.training.regularisation import (
    MixerCall,
    identity_distance,
    identity_penalty,
    mixer_calls,
)

__all__ = [
    "Discrepancy",
    "DivergenceError",
    "MixerCall",
    "RunFolder",
    "StepRecord",
    "TrainingConfig",
    "discrepancy",
    "distil",
    "evaluate",
    "identity_distance",
    "identity_penalty",
    "mixer_calls",
    "operator_error",
    "student_of",
    "train",
]
__dir__ = __all__.copy
