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
    if name not in __all__:
        raise AttributeError(f"module 'statesize.lab' has no attribute {name!r}")
    module = importlib.import_module(f"statesize.lab.{_HOME.get(name, name)}")
    return getattr(module, name) if name in _HOME else module
