"""Where decays start: one number per mixer, set by measuring, so that its ESS is a wanted share of the ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Inputs
from statesize.adapters.models.model_state import named_parts, pretrained_models
from statesize.check import require_kind, require_real
from statesize.errors import InputError, ModelError
from statesize.lab.training.decay_search import (
    FORGETS_MORE,
    DecaySearch,
    decays_of,
    module_name,
    set_values,
    utilisations,
)
from statesize.models.capture import capture
from statesize.texts.documents import configured_vocabulary

_SEQUENCES, _LENGTH = 2, 192


@dataclass(frozen=True)
class MixerInitialisation:
    """What was set in one mixer.

    Attributes:
        name: Its module name.
        kind: What it is, such as "s6" or "mamba2".
        parameter: Module name of the parameter that was set.
        offset: What was added to every entry of it.
        before: Utilisation of the model before.
        after: Utilisation with the offset, and with those of the mixers before it.
        message: Empty where the target was reached; else what was reached instead.
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
        target: The requested utilisation.
        mixers: What was set, in the order in which the model calls its mixers.
        skipped: Reason by module name, for the mixers without a decay that can be set.
    """

    target: float
    mixers: tuple[MixerInitialisation, ...]
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def reached(self) -> bool:
        """Whether every mixer that was set is within 0.01 of the target."""
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

    Each mixer with a parameter in `FORGETS_MORE` gets one number, which is added to all entries of that parameter:
    to logarithms of rates, so that the rates keep their ratios and the state its slow and fast parts, or to the biases
    of a gate. Adding −ln n to the rates 1 … n of S6 is the normalisation factor of Parnichkun et al. 2025 (arXiv
    2504.19561); here the number is searched, by measuring the relative tolerance-ESS at all positions of up to 32 units
    (heads or channels), further and further away and then by bisection. Mixers are set one after the other in the order
    of their calls, so that each is measured on what those before it pass on. It costs about ten forward passes and
    measurements a mixer. Those of long convolutions (`s4d`) take longest; a few hundred tokens are enough.

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
        >>> from statesize.lab.mixers import LanguageModel, ModelConfig
        >>> shape = ModelConfig("gla", 64, width=16, heads=2, layers=1, key_size=8, decay_bias=-5.0)
        >>> print(initialise(LanguageModel(shape, torch.Generator().manual_seed(0)), target=0.9))
        layers.0.mixer (gla): layers.0.mixer.decay.bias +..., utilisation 0.8... -> 0.9...
    """
    require_kind("model", model, nn.Module, "a torch module, which is changed in place", "Give load(NAME).model.")
    require_real("target", target, above=0, most=1, plain=True, advice="It is a utilisation, such as 0.8.")
    inputs = _random_tokens(model) if input_ids is None else input_ids
    seen = capture(model, inputs)
    kinds = {module_name(mixer.name): mixer.kind for mixer in seen.mixers}
    by_kind = {name: decays_of(model, name) for name in kinds}
    decays = {name: matches[0] for name, matches in by_kind.items() if len(matches) == 1}
    known = ", ".join(FORGETS_MORE)
    if not decays:
        raise ModelError(
            f"{type(model).__name__}: none of its mixers ({', '.join(kinds)}) has one parameter that sets its decay, "
            f"with a name that ends in {known}"
        )
    skipped = {
        name: f"it has {'several parameters' if matches else 'no parameter'} with a name that ends in {known}"
        for name, matches in by_kind.items()
        if name not in decays
    }
    before = utilisations(seen, set(decays), relative_tolerance)
    originals = [(parameter, parameter.detach().clone()) for _, parameter in decays.values()]
    mixers: list[MixerInitialisation] = []
    try:
        for name, (label, parameter) in decays.items():
            search = DecaySearch(model, inputs, name, label, parameter, float(target), relative_tolerance)
            offset, reached, message = search.result()
            mixers.append(MixerInitialisation(name, kinds[name], label, offset, before[name], reached, message))
    except BaseException:
        for parameter, original in originals:
            set_values(parameter, original)
        raise
    return Initialisation(float(target), tuple(mixers), skipped)


def _random_tokens(model: nn.Module) -> Tensor:
    inner = pretrained_models(named_parts(model))
    config: Any = inner[0].config.get_text_config() if inner else getattr(model, "config", None)
    vocabulary = configured_vocabulary(config)
    if vocabulary is None:
        raise InputError(
            f"input_ids must be token ids for a {type(model).__name__}, which does not say how many tokens it has, got "
            "none. Give some of shape (S, L)."
        )
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "positions", None) or _LENGTH
    shape = (_SEQUENCES, min(_LENGTH, int(longest)))
    ids = torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(0))
    pad = getattr(config, "pad_token_id", None)
    return ids if pad is None else torch.where(ids == pad, (ids + 1) % vocabulary, ids)
