"""Training: one loop, its settings and its folder; students; terms of a loss."""

from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.distillation import Discrepancy, Objective, discrepancy, distil, student_of
from statesize.lab.training.distillation_losses import hidden_error, logit_divergence, operator_error
from statesize.lab.training.folder import RunFolder
from statesize.lab.training.loop import DivergenceError, evaluate, train
from statesize.lab.training.regularisation import (
    MixerCall,
    Regularisation,
    identity_distance,
    mixer_calls,
    utilisation_distance,
)
from statesize.lab.training.state import StepRecord

__all__ = [
    "Discrepancy",
    "DivergenceError",
    "MixerCall",
    "Objective",
    "Regularisation",
    "RunFolder",
    "StepRecord",
    "TrainingConfig",
    "discrepancy",
    "distil",
    "evaluate",
    "hidden_error",
    "identity_distance",
    "logit_divergence",
    "mixer_calls",
    "operator_error",
    "student_of",
    "train",
    "utilisation_distance",
]
__dir__ = __all__.copy
