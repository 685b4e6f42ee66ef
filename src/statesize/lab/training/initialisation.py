"""Where rates of decay start: one number per mixer, found by measuring, for a wanted share of the largest ESS."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from statesize.errors import ModelError
from statesize.lab.mixers.model import LanguageModel
from statesize.measurement.settings import Settings
from statesize.models.capture import capture
from statesize.profiling.work import measure_captured

_SEQUENCES, _LENGTH, _UNITS = 2, 192, 32
_ACCURACY = 0.01
"""A utilisation this near to the target has reached it."""

_OFFSETS, _BISECTIONS = (1.0, 2.0, 4.0, 8.0, 16.0), 10


def initialise(model: LanguageModel, target: float) -> None:
    """Sets the rates of a model's mixers so that each uses a wanted share of what its state can hold, or nearly so."""
    # Each mixer with a parameter `log_rate` gets one number, which is added to all entries, so that the rates keep
    # their ratios. Adding −ln n to the rates 1 … n of S6 is the normalisation factor of Parnichkun et al. 2025 (arXiv
    # 2504.19561); here the number is searched, by measuring ESS_i / min(TSS, i, L − i) at all positions of 2 sequences
    # of random tokens, further and further away and then by bisection. Mixers are set in the order of their calls, so
    # that each is measured on what those before it pass on.
    rates = {
        f"layers.{layer}.mixer": block.mixer.log_rate
        for layer, block in enumerate(model.blocks)
        if hasattr(block.mixer, "log_rate")
    }
    if not rates:
        raise ModelError(f"none of the mixers of {model.config.mixer} has a parameter log_rate, which sets its decay")
    shape = (_SEQUENCES, min(_LENGTH, model.config.positions or _LENGTH))
    input_ids = torch.randint(model.config.vocabulary_size, shape, generator=torch.Generator().manual_seed(0))
    for mixer, parameter in rates.items():
        _search(model, input_ids, mixer, parameter, target)


def _search(model: LanguageModel, input_ids: Tensor, mixer: str, parameter: nn.Parameter, target: float) -> None:
    """Leaves the parameter of one mixer where its utilisation is the target, or nearest to it."""
    original, seen = parameter.detach().clone(), dict[float, float]()

    def shift(amount: float) -> None:
        with torch.no_grad():
            parameter.copy_(original + amount)

    def shortfall(amount: float) -> float:
        """The target less what the mixer uses when it forgets that much more."""
        if amount not in seen:
            shift(amount)
            seen[amount] = target - _utilisation(model, input_ids, mixer)
        return seen[amount]

    def bracketed(direction: float) -> bool:
        """Looks further and further in one direction, and between the last two once the target has been passed."""
        near, short = 0.0, shortfall(0.0)
        for size in _OFFSETS:
            if abs(short) <= _ACCURACY:
                return True
            far = direction * size
            beyond = shortfall(far)
            if short * beyond <= 0:
                break
            near, short = far, beyond
        else:
            return False
        for _ in range(_BISECTIONS):
            if min(abs(short), abs(beyond)) <= _ACCURACY:
                break
            middle = (near + far) / 2
            between = shortfall(middle)
            if short * between > 0:
                near, short = middle, between
            else:
                far, beyond = middle, between
        return True

    # Who forgets less holds more, as a rule; the other direction is for the exceptions.
    first = 1.0 if shortfall(0.0) < 0 else -1.0
    if not bracketed(first):
        bracketed(-first)
    # The one that changes least among those that do about as well: a decay of nearly 1 or 0 is slow to learn.
    least = min(map(abs, seen.values()))
    enough = _ACCURACY if least <= _ACCURACY else least + _ACCURACY / 2
    shift(min((amount for amount, short in seen.items() if abs(short) <= enough), key=abs))


def _utilisation(model: LanguageModel, input_ids: Tensor, mixer: str) -> float:
    (captured,) = capture(model, input_ids, layers=mixer, checks="none")
    units = np.arange(0, captured.units, -(-captured.units // _UNITS))
    settings = Settings(positions="all", tolerances=(), relative_tolerances=(1e-2,))
    measured = measure_captured(captured, units, settings, ("counts",))
    counts: Tensor = measured.relative_count  # pyright: ignore[reportAssignmentType]
    return float((counts[..., 0] / measured.ceiling).nanmean())
