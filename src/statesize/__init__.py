"""Measure how much of its memory a sequence model really uses: the effective state-size (ESS)."""

import importlib
from typing import TYPE_CHECKING, Any

from statesize.errors import EngineError, FileError, InputError, ModelError, StatesizeError
from statesize.ess import energy_ess, entropy_ess, tolerance_ess
from statesize.measurement import Measurement, hankel_singular_values, measure
from statesize.operators import Convolution, Dense, Operator, Recurrence, SoftmaxAttention
from statesize.version import __version__

if TYPE_CHECKING:
    from statesize import training, zoo
    from statesize.adapters.capture import Captured, capture
    from statesize.profiling.profile import Profile
    from statesize.profiling.run import profile

__all__ = [
    "Captured",
    "Convolution",
    "Dense",
    "EngineError",
    "FileError",
    "InputError",
    "Measurement",
    "ModelError",
    "Operator",
    "Profile",
    "Recurrence",
    "SoftmaxAttention",
    "StatesizeError",
    "__version__",
    "capture",
    "energy_ess",
    "entropy_ess",
    "hankel_singular_values",
    "measure",
    "profile",
    "tolerance_ess",
    "training",
    "zoo",
]

# Loaded on first use: they bring xarray, altair and tokenizers with them.
_LAZY = {
    "Captured": "statesize.adapters.capture",
    "capture": "statesize.adapters.capture",
    "Profile": "statesize.profiling.profile",
    "profile": "statesize.profiling.run",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in ("training", "zoo"):
        return importlib.import_module(f"statesize.{name}")
    raise AttributeError(f"module 'statesize' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
