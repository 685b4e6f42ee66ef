"""What is said of Hankel singular values, of operators and of profiles: numbers beside those of `measure`."""

from statesize.adapters.states import states
from statesize.bands import CountBands, count_bands
from statesize.measurement.measurement import hankel_singular_values
from statesize.measurement.metrics import energy_ess, entropy_ess, tolerance_ess
from statesize.report.diagnosis import Diagnosis, diagnose
from statesize.spectra.gradients import differentiable_entropy

__all__ = [
    "CountBands",
    "Diagnosis",
    "count_bands",
    "diagnose",
    "differentiable_entropy",
    "energy_ess",
    "entropy_ess",
    "hankel_singular_values",
    "states",
    "tolerance_ess",
]
