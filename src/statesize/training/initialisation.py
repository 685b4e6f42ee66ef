"""Where decays start: one number a mixer, found by measuring, so that its ESS is a wanted share of the ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from statesize.adapters.capture import Capture, capture
from statesize.adapters.models.checks import Inputs
from statesize.adapters.models.wrapped import pretrained_models
from statesize.check import require_real
from statesize.errors import InputError, ModelError
from statesize.profiling.measuring import measure_captured
from statesize.texts.token_files import configured_vocabulary

FORGETS_MORE: dict[str, float] = {
    "log_rate": 1.0,
    "A_log": 1.0,
    "decay_bias": -1.0,
    "decay.bias": -1.0,
    "fgate_preact.bias": -1.0,
}
"""The parameters that set how fast a mixer forgets, by the end of their names, and the sign in which it forgets more.

Logarithms of rates: `log_rate` of the package's S6, GLA-S6, S4D and long convolution, `A_log` of the Mamba, Mamba-2 and
gated delta-rule layers of transformers. Biases of gates: of the package's GLA and WLA, and of mLSTM.
"""

ACCURACY = 0.01
"""A utilisation this near to the target has reached it."""

_OFFSETS = (1.0, 2.0, 4.0, 8.0, 16.0)
_BISECTIONS = 10
_SEQUENCES, _LENGTH, _POSITIONS, _UNITS = 2, 192, 16, 32


@dataclass(frozen=True)
class MixerInitialisation:
    """What was set in one mixer.

    Attributes:
        name: Its module name.
        kind: What it is, such as "s6" or "mamba2".
        parameter: Module name of the parameter that was set.
        offset: What was added to every entry of it.
        before: Utilisation of the model as it was given.
        after: Utilisation with the offset, and with those of the mixers before it.
        message: Empty where the target was reached; else what was found instead.
    """

    name: str
    kind: str
    parameter: str
    offset: float
    before: float
    after: float
    message: str

    def __str__(self) -> str:
        said = f": {self.message}" if self.message else ""
        return (
            f"{self.name} ({self.kind}): {self.parameter} {self.offset:+.3f}, utilisation {self.before:.2f} -> "
            f"{self.after:.2f}{said}"
        )


@dataclass(frozen=True)
class Initialisation:
    """What `initialise` did; printed, it is a line a mixer.

    Attributes:
        target: The utilisation that was asked for.
        mixers: What was set, in the order in which the model calls its mixers.
        skipped: Reason by module name, for the mixers without a decay that can be set.
    """

    target: float
    mixers: tuple[MixerInitialisation, ...]
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def reached(self) -> bool:
        """Whether every mixer that was set is as near to the target as `ACCURACY`."""
        return not any(mixer.message for mixer in self.mixers)

    def __str__(self) -> str:
        left = (f"{name}: left as it is, {reason}" for name, reason in self.skipped.items())
        return "\n".join([*map(str, self.mixers), *left])


def initialise(
    model: nn.Module,
    target: float = 0.8,
    input_ids: Inputs | None = None,
    relative_tolerance: float = 1e-2,
) -> Initialisation:
    """Sets the decays of a model's mixers so that each uses a wanted share of what its state can hold.

    Each mixer with a parameter in `FORGETS_MORE` is given one number, which is added to all entries of that parameter:
    to logarithms of rates, so that the rates keep their ratios and the state its slow and fast parts, or to the biases
    of a gate. Adding −ln n to the rates 1 … n of S6 is the normalisation factor of Parnichkun et al. 2025 (arXiv
    2504.19561); here the number is searched, by measuring the relative tolerance-ESS at 16 positions of up to 32 units
    (heads or channels), further and further away and then by bisection. Mixers are set one after the other in the order
    of their calls, so that each is measured on what those before it pass on. It costs about ten forward passes a mixer.

    Utilisation is here the mean of ESS_i / min(TSS, i, L − i) over all positions. A target above what the mixer has
    with hardly any decay, or below what it has with hardly any memory, cannot be reached: then the mixer gets what
    came nearest, and the result says so. Nothing else changes: mode, dtype and random state of the model are as
    before, and where the search raises, so are its weights.

    Args:
        model: What `capture` takes: a `LanguageModel`, a model of transformers, or one with mixers of your own. It is
            changed in place.
        target: Utilisation in (0, 1].
        input_ids: What to measure on, such as token ids (S, L); None draws 2 sequences of 192 random tokens.
        relative_tolerance: ρ of the tolerance-ESS, in units of σ_1.

    Returns:
        What was set and what was reached.

    Raises:
        InputError: The target is out of range, the inputs do not fit the model, or there are none and the model does
            not say how many tokens it has.
        ModelError: No mixer has a decay that can be set, or `capture` refuses the model.

    Example:
        >>> from statesize.mixers import LanguageModel, ModelConfig
        >>> shape = ModelConfig("gla", 64, width=16, heads=2, layers=1, key_size=8, decay_bias=-5.0)
        >>> print(initialise(LanguageModel(shape, torch.Generator().manual_seed(0)), target=0.9))
        layers.0.mixer (gla): layers.0.mixer.decay.bias +..., utilisation 0.8... -> 0.9...
    """
    require_real("target", target, above=0, most=1, plain=True, advice="It is a utilisation, such as 0.8.")
    inputs = _random_tokens(model) if input_ids is None else input_ids
    seen = capture(model, inputs)
    kinds = {_module_name(mixer.name): mixer.kind for mixer in seen.mixers}
    found = {name: _decays(model, name) for name in kinds}
    decays = {name: matches[0] for name, matches in found.items() if len(matches) == 1}
    known = ", ".join(FORGETS_MORE)
    if not decays:
        raise ModelError(
            f"{type(model).__name__}: none of its mixers ({', '.join(kinds)}) has one parameter that sets its decay, "
            f"with a name that ends in {known}"
        )
    skipped = {
        name: f"it has {'several parameters' if matches else 'no parameter'} with a name that ends in {known}"
        for name, matches in found.items()
        if name not in decays
    }
    before = _utilisations(seen, set(decays), relative_tolerance)
    originals = [(parameter, parameter.detach().clone()) for _, parameter in decays.values()]
    mixers: list[MixerInitialisation] = []
    try:
        for name, (label, parameter) in decays.items():
            search = _Search(model, inputs, name, label, parameter, float(target), relative_tolerance)
            offset, reached, message = search.result()
            mixers.append(MixerInitialisation(name, kinds[name], label, offset, before[name], reached, message))
    except BaseException:
        for parameter, original in originals:
            _set(parameter, original)
        raise
    return Initialisation(float(target), tuple(mixers), skipped)


class _Search:
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
        # Of those that do about as well, the one that changes least: a decay of nearly 1 or 0 is slow to learn.
        least = min(misses.values())
        enough = ACCURACY if least <= ACCURACY else least + ACCURACY / 2
        amount = min((amount for amount, miss in misses.items() if miss <= enough), key=abs)
        _set(self._parameter, self._original + self._sign * amount)
        low, high = min(self._seen.values()), max(self._seen.values())
        missed = f"{self._target:g} is out of reach; what was found lies between {low:.2f} and {high:.2f}"
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
            _set(self._parameter, self._original + self._sign * amount)
            captures = capture(self._model, self._inputs, layers=self._mixer, checks="none")
            self._seen[amount] = _utilisations(captures, {self._mixer}, self._relative_tolerance)[self._mixer]
        return self._target - self._seen[amount]


def _utilisations(captures: Capture, names: set[str], relative_tolerance: float) -> dict[str, float]:
    """Mean utilisation of some mixers by module name; the others are passed by."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for captured in captures:
        name = _module_name(captured.name)
        if name not in names:
            continue
        (measured,) = measure_captured(
            captured,
            np.arange(0, captured.units, -(-captured.units // _UNITS)),
            tolerances=(),
            relative_tolerances=(relative_tolerance,),
            outputs=("counts",),
            positions=_positions(captured.units_operator(slice(0, 1)).length),
            count_accuracy=0,
        )
        counts = measured.relative_count
        if counts is not None:
            found[name].append(float((counts[..., 0] / measured.ceiling).nanmean()))
    return {name: sum(values) / len(values) for name, values in found.items()}


def _positions(length: int) -> list[int]:
    """The middles of equal parts of 1 … L − 1, so that their mean is about that of all positions."""
    count = min(_POSITIONS, length - 1)
    return [1 + int((part + 0.5) * (length - 1) / count) for part in range(count)]


def _decays(model: nn.Module, mixer: str) -> list[tuple[str, nn.Parameter]]:
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
def _set(parameter: nn.Parameter, values: Tensor) -> None:
    parameter.copy_(values)


def _module_name(mixer: str) -> str:
    # A second call of one module has the same name with a number.
    return mixer.partition("@")[0]


def _random_tokens(model: nn.Module) -> Tensor:
    inner = pretrained_models(model)
    config: Any = inner[0].config.get_text_config() if inner else getattr(model, "config", None)
    vocabulary = configured_vocabulary(config)
    if vocabulary is None:
        raise InputError(
            f"input_ids must be given for a {type(model).__name__}, which does not say how many tokens it has, got "
            "none. Give some of shape (S, L)."
        )
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "positions", None) or _LENGTH
    shape = (_SEQUENCES, min(_LENGTH, int(longest)))
    ids = torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(0))
    pad = getattr(config, "pad_token_id", None)
    return ids if pad is None else torch.where(ids == pad, (ids + 1) % vocabulary, ids)
