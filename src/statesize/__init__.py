"""Measure how much of its memory a sequence model really uses: the effective state-size (ESS)."""

import importlib
from typing import TYPE_CHECKING, Any

from statesize.version import __version__

if TYPE_CHECKING:
    from statesize.adapters.capture import Captured, capture
    from statesize.adapters.states import states
    from statesize.bands import CountBands, count_bands
    from statesize.compression.compress import compress
    from statesize.compression.result import Compression
    from statesize.errors import EngineError, FileError, InputError, ModelError, StatesizeError
    from statesize.ess import energy_ess, entropy_ess, tolerance_ess
    from statesize.lab import training, zoo
    from statesize.lab.retrieval.needles import needles
    from statesize.lab.retrieval.result import Needles
    from statesize.lab.trends.growth import Growth
    from statesize.lab.trends.length import length
    from statesize.lab.trends.result import Series
    from statesize.lab.trends.series import series
    from statesize.loading.models import load
    from statesize.measurement import Measurement, hankel_singular_values, measure
    from statesize.network.network import network_ess
    from statesize.network.plan import NetworkPlan, network_plan
    from statesize.network.redundancy import redundancy
    from statesize.network.result import NetworkEss
    from statesize.operators import (
        Convolution,
        Dense,
        GatedConvolution,
        Operator,
        Recurrence,
        Shared,
        SoftmaxAttention,
        StateSpace,
    )
    from statesize.profiling.plan import Plan, plan
    from statesize.profiling.profile import Profile
    from statesize.profiling.run import profile
    from statesize.reduction.recommendation import Recommendation, recommend_state_size
    from statesize.reduction.reduce import reduce
    from statesize.reduction.reduction import Reduction
    from statesize.reduction.varying import VaryingReduction
    from statesize.results.findings.comparison import Comparison, compare
    from statesize.results.findings.diagnosis import Diagnosis, diagnose
    from statesize.results.findings.redundancy import Redundancy
    from statesize.spectra.gradients.differentiable import differentiable_entropy

# Loaded on first use, so that `statesize --version` and the like need not wait for torch.
_HOMES = {
    "adapters.capture": ("Captured", "capture"),
    "adapters.states": ("states",),
    "compression.compress": ("compress",),
    "compression.result": ("Compression",),
    "errors": ("EngineError", "FileError", "InputError", "ModelError", "StatesizeError"),
    "ess": ("energy_ess", "entropy_ess", "tolerance_ess"),
    "loading.models": ("load",),
    "bands": ("CountBands", "count_bands"),
    "measurement": ("Measurement", "hankel_singular_values", "measure"),
    "network.network": ("network_ess",),
    "network.plan": ("NetworkPlan", "network_plan"),
    "network.redundancy": ("redundancy",),
    "network.result": ("NetworkEss",),
    "operators": (
        "Convolution",
        "Dense",
        "GatedConvolution",
        "Operator",
        "Recurrence",
        "Shared",
        "SoftmaxAttention",
        "StateSpace",
    ),
    "profiling.plan": ("Plan", "plan"),
    "profiling.profile": ("Profile",),
    "profiling.run": ("profile",),
    "reduction.recommendation": ("Recommendation", "recommend_state_size"),
    "reduction.reduce": ("reduce",),
    "reduction.reduction": ("Reduction",),
    "reduction.varying": ("VaryingReduction",),
    "lab.retrieval.needles": ("needles",),
    "lab.retrieval.result": ("Needles",),
    "lab.trends.growth": ("Growth",),
    "lab.trends.length": ("length",),
    "lab.trends.result": ("Series",),
    "lab.trends.series": ("series",),
    "results.findings.comparison": ("Comparison", "compare"),
    "results.findings.diagnosis": ("Diagnosis", "diagnose"),
    "results.findings.redundancy": ("Redundancy",),
    "spectra.gradients.differentiable": ("differentiable_entropy",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Captured",
    "Comparison",
    "Compression",
    "Convolution",
    "CountBands",
    "Dense",
    "Diagnosis",
    "EngineError",
    "FileError",
    "GatedConvolution",
    "Growth",
    "InputError",
    "Measurement",
    "ModelError",
    "Needles",
    "NetworkEss",
    "NetworkPlan",
    "Operator",
    "Plan",
    "Profile",
    "Recommendation",
    "Recurrence",
    "Reduction",
    "Redundancy",
    "Series",
    "Shared",
    "SoftmaxAttention",
    "StateSpace",
    "StatesizeError",
    "VaryingReduction",
    "__version__",
    "capture",
    "compare",
    "compress",
    "count_bands",
    "diagnose",
    "differentiable_entropy",
    "energy_ess",
    "entropy_ess",
    "hankel_singular_values",
    "length",
    "load",
    "measure",
    "needles",
    "network_ess",
    "network_plan",
    "plan",
    "profile",
    "recommend_state_size",
    "reduce",
    "redundancy",
    "series",
    "states",
    "tolerance_ess",
    "training",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in ("training", "zoo"):
        return importlib.import_module(f"statesize.lab.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(f"statesize.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'statesize' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
