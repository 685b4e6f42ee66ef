"""Checks that every operator, engine and plug-in passes: inherit a contract to run it on one of your own."""

from statesize.testing.comparison import compare_with_definition
from statesize.testing.engine_contract import EngineContract
from statesize.testing.model_plugin_contract import ModelPluginContract
from statesize.testing.operator_contract import OperatorContract

__all__ = ["EngineContract", "ModelPluginContract", "OperatorContract", "compare_with_definition"]
__dir__ = __all__.copy
