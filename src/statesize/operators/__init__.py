"""Causal operators: what a sequence mixer is."""

from statesize.operators.attention import SoftmaxAttention
from statesize.operators.convolution import Convolution
from statesize.operators.dense import Dense
from statesize.operators.gated_convolution import GatedConvolution
from statesize.operators.operator import Operator
from statesize.operators.recurrence import Recurrence
from statesize.operators.shared import Shared
from statesize.operators.state_space import StateSpace

__all__ = [
    "Convolution",
    "Dense",
    "GatedConvolution",
    "Operator",
    "Recurrence",
    "Shared",
    "SoftmaxAttention",
    "StateSpace",
]
