"""What is said of Hankel singular values, of operators and of profiles: numbers beside those of `measure`."""

from statesize.measurement.measurement import hankel_singular_values
from statesize.measurement.metrics import energy_ess, entropy_ess, tolerance_ess
from statesize.spectra.gradients import differentiable_entropy

__all__ = [
    "differentiable_entropy",
    "energy_ess",
    "entropy_ess",
    "hankel_singular_values",
    "tolerance_ess",
]
