"""Causal operators: what a sequence mixer is."""

from statesize.operators.attention import SoftmaxAttention
from statesize.operators.block_dense import BlockDense
from statesize.operators.convolution import Convolution
from statesize.operators.derivative import Derivative
from statesize.operators.operator import Dense, Operator
from statesize.operators.recurrence import Recurrence
from statesize.operators.state_space import StateSpace
from statesize.operators.stepped import Shared

__all__ = [
    "BlockDense",
    "Convolution",
    "Dense",
    "Derivative",
    "Operator",
    "Recurrence",
    "Shared",
    "SoftmaxAttention",
    "StateSpace",
]
__dir__ = __all__.copy
