"""Checks that every operator and every engine passes.

Inherit `OperatorContract`, `SharedContract` or `EngineContract` to run them on an operator or an engine of your own.
"""

from statesize.testing.comparison import compare_with_definition
from statesize.testing.engine_contract import EngineContract
from statesize.testing.operator_contract import OperatorContract, SharedContract

__all__ = ["EngineContract", "OperatorContract", "SharedContract", "compare_with_definition"]
