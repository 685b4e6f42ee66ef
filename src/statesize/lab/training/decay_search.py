"""The search for where one mixer's decays start: an offset of a parameter, set by measuring."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from statesize.adapters.capture import Capture
from statesize.adapters.forward import Inputs
from statesize.measurement.settings import Settings
from statesize.models.capture import capture
from statesize.profiling.work import measure_captured

FORGETS_MORE: dict[str, float] = {
    "log_rate": 1.0,
    "A_log": 1.0,
    "decay_bias": -1.0,
    "decay.bias": -1.0,
    "fgate_preact.bias": -1.0,
}
"""The parameters that set how fast a mixer forgets, by the end of their names, and the sign in which it forgets more.

Logarithms of rates: `log_rate` of the package's S6, GLA-S6 and S4D, `A_log` of the Mamba, Mamba-2 and
gated delta-rule layers of transformers. Biases of gates: of the package's GLA and WLA, and of mLSTM.
"""

ACCURACY = 0.01
"""A utilisation this near to the target has reached it."""

_OFFSETS = (1.0, 2.0, 4.0, 8.0, 16.0)
_BISECTIONS = 10
_UNITS = 32


class DecaySearch:
    """The search for one mixer: its parameter is where the last look left it, and `result` leaves it at the best."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        mixer: str,
        label: str,
        parameter: nn.Parameter,
        target: float,
        relative_tolerance: float,
    ) -> None:
        self._model, self._inputs, self._mixer, self._parameter = model, inputs, mixer, parameter
        self._target, self._relative_tolerance = target, relative_tolerance
        self._sign = next(sign for end, sign in FORGETS_MORE.items() if _ends(label, end))
        self._original = parameter.detach().clone()
        # Utilisation by how much more the mixer forgets.
        self._seen: dict[float, float] = {}

    def result(self) -> tuple[float, float, str]:
        """The offset of the parameter, the utilisation with it, and what to say where that is not the target."""
        # Who forgets less holds more, as a rule; the other direction is for the exceptions.
        first = 1.0 if self._look(0.0) < 0 else -1.0
        if not self._bracketed(first):
            self._bracketed(-first)
        misses = {amount: abs(value - self._target) for amount, value in self._seen.items()}
        # The one that changes least among those that do about as well: a decay of nearly 1 or 0 is slow to learn.
        least = min(misses.values())
        enough = ACCURACY if least <= ACCURACY else least + ACCURACY / 2
        amount = min((amount for amount, miss in misses.items() if miss <= enough), key=abs)
        set_values(self._parameter, self._original + self._sign * amount)
        low, high = min(self._seen.values()), max(self._seen.values())
        missed = f"{self._target:g} is out of reach; measured values lie between {low:.2f} and {high:.2f}"
        return self._sign * amount, self._seen[amount], "" if misses[amount] <= ACCURACY else missed

    def _bracketed(self, direction: float) -> bool:
        """Looks further and further in one direction, and between the last two once the target has been passed."""
        near, short = 0.0, self._look(0.0)
        for size in _OFFSETS:
            if abs(short) <= ACCURACY:
                return True
            far = direction * size
            beyond = self._look(far)
            if short * beyond <= 0:
                break
            near, short = far, beyond
        else:
            return False
        for _ in range(_BISECTIONS):
            if min(abs(short), abs(beyond)) <= ACCURACY:
                break
            middle = (near + far) / 2
            between = self._look(middle)
            if short * between > 0:
                near, short = middle, between
            else:
                far, beyond = middle, between
        return True

    def _look(self, amount: float) -> float:
        """By how much the target lies above what the mixer uses when it forgets that much more."""
        if amount not in self._seen:
            set_values(self._parameter, self._original + self._sign * amount)
            captures = capture(self._model, self._inputs, layers=self._mixer, checks="none")
            self._seen[amount] = utilisations(captures, {self._mixer}, self._relative_tolerance)[self._mixer]
        return self._target - self._seen[amount]


def utilisations(captures: Capture, names: set[str], relative_tolerance: float) -> dict[str, float]:
    """Mean utilisation of some mixers by module name; the others are passed by."""
    searched: dict[str, list[float]] = {name: [] for name in names}
    for captured in captures:
        name = module_name(captured.name)
        if name not in names:
            continue
        measured = measure_captured(
            captured,
            np.arange(0, captured.units, -(-captured.units // _UNITS)),
            Settings(positions="all", tolerances=(), relative_tolerances=(relative_tolerance,), count_accuracy=0),
            ("counts",),
        )
        counts = measured.relative_count
        if counts is not None:
            searched[name].append(float((counts[..., 0] / measured.ceiling).nanmean()))
    return {name: sum(values) / len(values) for name, values in searched.items()}


def decays_of(model: nn.Module, mixer: str) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a mixer that set its decay, with their module names."""
    # A model that is itself a mixer goes by the name of its class.
    prefix = "" if mixer == type(model).__name__ else f"{mixer}."
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if name.startswith(prefix) and any(_ends(name, end) for end in FORGETS_MORE)
    ]


def _ends(parameter: str, end: str) -> bool:
    return f".{parameter}".endswith(f".{end}")


@torch.no_grad()
def set_values(parameter: nn.Parameter, values: Tensor) -> None:
    """Puts values of its shape into a parameter."""
    parameter.copy_(values)


def module_name(mixer: str) -> str:
    """The module of a captured mixer, whose second call has the same name with a number."""
    return mixer.partition("@")[0]
