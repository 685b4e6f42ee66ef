"""The laboratory: small models, and what training them tells of the measure.

Read `mixers` for the models, `tasks` and `training` for how they come about, `zoo` for those that are bundled,
`studies` for what they show, `trends` for what is measured of checkpoints and lengths.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statesize.lab import mixers, studies, tasks, training, zoo
    from statesize.lab.trends.length import length
    from statesize.lab.trends.series import series
    from statesize.lab.trends.trend import Trend

_HOME = {"Trend": "trends.trend", "length": "trends.length", "series": "trends.series"}

__all__ = ["Trend", "length", "mixers", "series", "studies", "tasks", "training", "zoo"]
__dir__ = __all__.copy


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"statesize.lab.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in __all__:
        return importlib.import_module(f"statesize.lab.{name}")
    raise AttributeError(f"module 'statesize.lab' has no attribute {name!r}")
