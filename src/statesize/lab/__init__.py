"""The laboratory: small models, and what training them tells of the measure.

Read `mixers` for the models, `tasks` and `training` for how they come about, `zoo` for those that are bundled,
`studies` for what they show, `trends` and `retrieval` for what is measured of checkpoints, lengths and needles.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statesize.lab import mixers, studies, tasks, training, zoo
    from statesize.lab.retrieval.needles import needles
    from statesize.lab.retrieval.result import Needles
    from statesize.lab.trends.growth import Growth
    from statesize.lab.trends.length import length
    from statesize.lab.trends.result import Series
    from statesize.lab.trends.series import series

_HOME = {
    "Growth": "trends.growth",
    "Needles": "retrieval.result",
    "Series": "trends.result",
    "length": "trends.length",
    "needles": "retrieval.needles",
    "series": "trends.series",
}

__all__ = [
    "Growth",
    "Needles",
    "Series",
    "length",
    "mixers",
    "needles",
    "series",
    "studies",
    "tasks",
    "training",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"statesize.lab.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in __all__:
        return importlib.import_module(f"statesize.lab.{name}")
    raise AttributeError(f"module 'statesize.lab' has no attribute {name!r}")
