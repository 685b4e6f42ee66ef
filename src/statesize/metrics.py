"""What is said of Hankel singular values, of operators and of profiles: numbers beside those of `measure`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from statesize.adapters.capture import capture
from statesize.adapters.models.inputs import Inputs
from statesize.bands import CountBands, count_bands
from statesize.errors import ModelError
from statesize.measurement.measurement import hankel_singular_values
from statesize.measurement.metrics import energy_ess, entropy_ess, tolerance_ess
from statesize.operators import Recurrence
from statesize.report.diagnosis import Diagnosis, diagnose
from statesize.spectra.cut import Positions, make_cut
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


@torch.no_grad()
def states(model: nn.Module, input_ids: Inputs, positions: Positions = None) -> dict[str, Tensor]:
    """The states of a model's recurrences before chosen tokens: trajectories, and what read-outs are fitted to.

    The state at i is what all tokens before token i left, the one whose effective size `measure` gives at i. Mixers
    without a recurrence, such as softmax attention and long convolutions, are left out.

    Args:
        model: A causal language model, as for `capture`.
        input_ids: Token ids (S, L), or the keyword arguments of the model's forward.
        positions: None for all of 1 … L − 1, an int for that many evenly spread, or a list.

    Returns:
        The states of each mixer by its name, n numbers for each channel of a unit, (S, units, P, n, channels).

    Raises:
        ModelError: No mixer of the model has a recurrence, or as for `capture`.
        InputError: A position out of range.

    Example:
        >>> from statesize.lab.mixers import LanguageModel, ModelConfig
        >>> config = ModelConfig("la", vocabulary_size=10, width=8, heads=2, key_size=4, layers=1)
        >>> held = states(LanguageModel(config), torch.arange(9)[None], positions=[4, 8])
        >>> {name: state.shape for name, state in held.items()}
        {'layers.0.mixer': torch.Size([1, 2, 2, 4, 4])}
    """
    by_mixer: dict[str, Tensor] = {}
    kinds: dict[str, None] = {}
    for captured in capture(model, input_ids):
        operator, values = captured.operator, captured.values
        kinds[captured.kind] = None
        if isinstance(operator, Recurrence) and values is not None:
            cut = make_cut(operator.length, positions)
            by_mixer[captured.name] = operator.states(values(), cut.positions)
        captured.forget()
    if not by_mixer:
        raise ModelError(f"model must have a recurrence with a state, got {', '.join(kinds)} only.")
    return by_mixer
