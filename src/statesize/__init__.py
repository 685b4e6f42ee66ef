"""Measure how much of its memory a sequence model really uses: the effective state-size (ESS)."""

import importlib
import random
import sys
from importlib.util import find_spec
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
    from statesize.operators import Convolution, Dense, Operator, Recurrence, Shared, SoftmaxAttention, StateSpace
    from statesize.profiling.profile import Profile
    from statesize.profiling.run import profile
    from statesize.reduction.reduce import reduce
    from statesize.report.comparison import compare
    from statesize.truncation.cache import cache
    from statesize.truncation.truncate import truncate

# Loaded on first use, so that `statesize --version` and the like need not wait for torch.
_HOMES = {
    "errors": ("StatesizeError",),
    "measurement.measurement": ("Measurement", "measure"),
    "measurement.settings": ("Settings",),
    "models.capture": ("capture",),
    "models.load": ("load",),
    "networks.network": ("network_ess",),
    "operators": ("Convolution", "Dense", "Operator", "Recurrence", "Shared", "SoftmaxAttention", "StateSpace"),
    "profiling.profile": ("Profile",),
    "profiling.run": ("profile",),
    "reduction.reduce": ("reduce",),
    "report.comparison": ("compare",),
    "truncation.cache": ("cache",),
    "truncation.truncate": ("truncate",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Convolution", "Dense", "Measurement", "Operator", "Profile", "Recurrence", "Settings", "Shared",
    "SoftmaxAttention", "StateSpace", "StatesizeError", "__version__", "cache", "capture", "compare", "errors",
    "integrations", "load", "measure", "metrics", "network_ess", "operators", "profile", "reduce", "reduction",
    "testing", "truncate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Others are packages inside, those that plug themselves in among them.
    home = _HOME.get(name, name)
    if home == name and (name.startswith("_") or find_spec(f"statesize.{name}") is None):
        # With the module, Python proposes a name that is spelt alike.
        raise AttributeError(f"module 'statesize' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    # Packages may draw random numbers where they are imported, as rich does.
    state = random.getstate()
    try:
        module = importlib.import_module(f"statesize.{home}")
    finally:
        random.setstate(state)
    if name in _HOME:
        globals()[name] = getattr(module, name)
        return globals()[name]
    return module


def __dir__() -> list[str]:
    return sorted({*__all__, "lab"})
