"""The configuration of the small language models that statesize trains and bundles."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from statesize.check import refuse, require_count, require_real
from statesize.errors import FileError, InputError
from statesize.lab.registry import Registry


def _check(kind: type) -> None:
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        refuse("mixer", "a class that inherits torch.nn.Module", kind)  # pyright: ignore[reportUnknownArgumentType]
    if not callable(getattr(kind, "operator", None)):
        raise InputError(f"mixer must have a method operator(hidden) that returns an Operator, got {kind.__name__}.")


mixer: Registry[type[nn.Module]] = Registry("mixer", "statesize.lab.mixers", _check)
"""Makes a class known by a name wherever a mixer is named: `ModelConfig`, patterns, grids of studies.

`mixer(config)` gets the `ModelConfig` of its model. It maps hidden states (S, L, d) to the same shape and has a method
`operator(hidden)`. Its weights keep the first values that it gives them; those of a subclass of `Mixer` start as the
package's own.
"""

CONFIG_FORMAT = 1
"""Version of the written form of a `ModelConfig`; it grows by one when old files can no longer be read."""

_OPTIONAL = {"window"}
"""Fields that are written only where they differ from their defaults."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a `LanguageModel`; every field has a default, and bad values are refused at construction.

    The defaults give a model of about one million parameters.

    Attributes:
        mixer: Sequence mixer of every layer, one of `mixer.names()`; or a pattern such as "gla,sa", which is
            repeated until every layer has one.
        vocabulary_size: Number of tokens.
        width: Model dimension d; a multiple of `heads`.
        heads: Heads of each mixer.
        layers: Number of blocks, a multiple of the length of the pattern.
        key_size: Key dimension n of a head or states n of a channel, the theoretical state-size of the mixers with a
            fixed one.
        mlp_factor: Hidden width of the gated MLP in units of `width`; 0 for layers without an MLP.
        convolution_size: Taps of the short causal convolution on what enters a mixer, if it has one; 1 leaves it a
            scale.
        decay_bias: Initial bias b of the decays of "wla" and "gla": a = exp(logsigmoid(b) / 16), that is 0.997 for 3
            and 0.958 for 0. Small biases make heads forget early in training and are prone to state collapse.
        dropout: Probability of dropping a channel of what a mixer or an MLP adds to the residual stream; training only.
        normalised: Whether the rates of "s6" and "gla-s6" start at −1/n … −n/n rather than −1 … −n.
        smallest_step: Lower end of the scale on which the step sizes of "s6", "gla-s6" and "gated-deltanet" start.
        largest_step: Its upper end.
        positions: Length of the longest sequence of a learned positional embedding; 0 for none.
        tied: Whether the output layer has the weights of the embedding. Weights of its own cost as many again. Linear
            attention learned short recall (64 tokens) in fewer steps with them; S6 and longer recall did not gain.
        window: Tokens that a mixer with a window sees, the present one included.

    Example:
        >>> ModelConfig(mixer="la", width=64, heads=2).value_size
        32
        >>> ModelConfig(mixer="gla,sa", layers=4).mixer_of(3)
        'sa'
    """

    mixer: str = "gla"
    vocabulary_size: int = 1024
    width: int = 128
    heads: int = 4
    layers: int = 4
    key_size: int = 32
    mlp_factor: int = 3
    convolution_size: int = 4
    decay_bias: float = 3.0
    dropout: float = 0.0
    normalised: bool = False
    smallest_step: float = 0.001
    largest_step: float = 0.1
    positions: int = 0
    tied: bool = True
    window: int = 64

    def __post_init__(self) -> None:
        sizes = ("vocabulary_size", "width", "heads", "layers", "key_size", "mlp_factor", "convolution_size")
        for name in (*sizes, "positions", "window"):
            bound = 0 if name in ("positions", "mlp_factor") else 1
            if require_count(name, getattr(self, name), least=bound, plain=True) >= 2**31:
                refuse(name, "below 2**31", getattr(self, name))
        for name in ("normalised", "tied"):
            if not isinstance(getattr(self, name), bool):
                refuse(name, "True or False", getattr(self, name))
        for name in ("dropout", "decay_bias", "smallest_step", "largest_step"):
            require_real(name, getattr(self, name), plain=True)
        require_real("dropout", self.dropout, least=0, below=1)
        require_real("decay_bias", self.decay_bias, above=-64, below=64)
        if not 0 < self.smallest_step <= self.largest_step:
            refuse("smallest_step", f"above 0 and at most largest_step, {self.largest_step!r}", self.smallest_step)
        names = mixer.names()
        if not isinstance(self.mixer, str) or not set(self.pattern) <= set(names):  # pyright: ignore[reportUnnecessaryIsInstance]
            refuse(
                "mixer", f"one of {', '.join(names)}, or a pattern of them such as 'gla,sa' without spaces", self.mixer
            )
        if self.layers % len(self.pattern):
            refuse("layers", f"a multiple of the {len(self.pattern)} that mixer {self.mixer!r} names", self.layers)
        if self.width % self.heads:
            fitting = self.width // self.heads * self.heads or self.heads
            refuse("width", f"a multiple of heads, {self.heads}", self.width, f"Give {fitting}.")

    @property
    def value_size(self) -> int:
        """Value channels of a head, width / heads."""
        return self.width // self.heads

    @property
    def pattern(self) -> tuple[str, ...]:
        """The mixers of the first layers, which the following layers repeat."""
        return tuple(self.mixer.split(","))

    def mixer_of(self, layer: int) -> str:
        """The mixer of one layer, from 0."""
        return self.pattern[layer % len(self.pattern)]

    def to_dict(self) -> dict[str, Any]:
        """The fields by name as plain JSON values, and the version of their format."""
        fields = dataclasses.asdict(self)
        unused = {name for name in _OPTIONAL if fields[name] == getattr(type(self), name)}
        return {"format": CONFIG_FORMAT} | {name: value for name, value in fields.items() if name not in unused}

    @classmethod
    def from_dict(cls, values: object, source: str = "this configuration") -> ModelConfig:
        """The configuration that `to_dict` wrote to some source; a FileError where it is another value."""
        try:
            fields = dict(cast("dict[str, Any]", values))
            if fields.pop("format") != CONFIG_FORMAT or not _NEEDED <= fields.keys():
                raise ValueError("other fields or another format")
            return cls(**fields)
        except (InputError, TypeError, ValueError, KeyError) as error:
            raise FileError(
                f"{source} must be the configuration of a model of this version, got {error!r}. Train the model again."
            ) from error


_NEEDED = {field.name for field in dataclasses.fields(ModelConfig)} - _OPTIONAL
