"""Measure how much of its memory a sequence model really uses: the effective state-size (ESS)."""

import importlib
import random
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from statesize.version import __version__

if TYPE_CHECKING:
    from statesize import errors, integrations, metrics, operators, reduction, testing
    from statesize.errors import StatesizeError
    from statesize.measurement.measurement import Measurement, measure
    from statesize.measurement.settings import Settings
    from statesize.models.capture import capture
    from statesize.models.load import load
    from statesize.networks.network import network_ess
    from statesize.operators import (
        Convolution,
        Dense,
        Operator,
        Recurrence,
        Shared,
        SoftmaxAttention,
        StateSpace,
    )
    from statesize.profiling.profile import Profile
    from statesize.profiling.run import profile
    from statesize.reduction.reduce import reduce
    from statesize.report.comparison import compare
    from statesize.truncation.cache import cache
    from statesize.truncation.truncate import truncate

# Loaded on first use, so that `statesize --version` and the like need not wait for torch.
_HOMES = {
    "Measurement measure": "measurement.measurement",
    "Settings": "measurement.settings",
    "StatesizeError": "errors",
    "capture": "models.capture",
    "load": "models.load",
    "network_ess": "networks.network",
    "Convolution Dense Operator Recurrence Shared SoftmaxAttention StateSpace": "operators",
    "Profile": "profiling.profile",
    "profile": "profiling.run",
    "reduce": "reduction.reduce",
    "compare": "report.comparison",
    "cache": "truncation.cache",
    "truncate": "truncation.truncate",
}
_HOME = {name: home for names, home in _HOMES.items() for name in names.split()}

__all__ = [
    "Convolution",
    "Dense",
    "Measurement",
    "Operator",
    "Profile",
    "Recurrence",
    "Settings",
    "Shared",
    "SoftmaxAttention",
    "StateSpace",
    "StatesizeError",
    "__version__",
    "cache",
    "capture",
    "compare",
    "errors",
    "integrations",
    "load",
    "measure",
    "metrics",
    "network_ess",
    "operators",
    "profile",
    "reduce",
    "reduction",
    "testing",
    "truncate",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(_imported(_HOME[name]), name)
        globals()[name] = value
        return value
    # Packages inside, those that plug themselves in among them.
    if not name.startswith("_") and find_spec(f"statesize.{name}") is not None:
        return _imported(name)
    # With the module, Python proposes a name that is spelt alike.
    raise AttributeError(f"module 'statesize' has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def _imported(name: str) -> ModuleType:
    # Packages may draw random numbers where they are imported, as rich does.
    state = random.getstate()
    try:
        return importlib.import_module(f"statesize.{name}")
    finally:
        random.setstate(state)


def __dir__() -> list[str]:
    return sorted({*__all__, "lab"})
