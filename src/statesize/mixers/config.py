"""The configuration of the small language models that statesize trains and bundles."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, cast, get_type_hints

from statesize.errors import FileError, InputError

MIXER_NAMES = ("sa", "la", "wla", "gla")
"""Names of the sequence mixers: softmax, linear, weighted linear and gated linear attention."""

CONFIG_FORMAT = 1
"""Version of the written form of a `ModelConfig`; it grows by one when old files can no longer be read."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a `LanguageModel`; every field has a default, and bad values are refused at construction.

    The defaults give a model of about one million parameters.

    Attributes:
        mixer: Sequence mixer of every layer: "sa", "la", "wla" or "gla".
        vocabulary_size: Number of tokens; the embedding is shared with the output layer.
        width: Model dimension d; a multiple of `heads`.
        heads: Heads of each mixer.
        layers: Number of blocks.
        key_size: Key dimension n of a head, the theoretical state-size of the linear mixers.
        mlp_factor: Hidden width of the gated MLP in units of `width`.
        convolution_size: Taps of the short causal convolution on queries, keys and values; 1 leaves it a scale.
        decay_bias: Initial bias b of the decays of "wla" and "gla": a = exp(logsigmoid(b) / 16), that is 0.997 for
            3 and 0.958 for 0. Small biases make heads forget early in training and are prone to state collapse.
        dropout: Probability of dropping a channel of what a mixer or an MLP adds to the residual stream; training only.

    Example:
        >>> ModelConfig(mixer="la", width=64, heads=2).value_size
        32
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

    def __post_init__(self) -> None:
        if self.mixer not in MIXER_NAMES:
            raise InputError(f"mixer is {self.mixer!r}; the mixers are {', '.join(MIXER_NAMES)}")
        for name in ("vocabulary_size", "width", "heads", "layers", "key_size", "mlp_factor", "convolution_size"):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; it must be an integer of at least 1")
        if self.width % self.heads:
            raise InputError(
                f"width is {self.width} and heads is {self.heads}; width must be a multiple of heads,"
                f" such as {self.width // self.heads * self.heads or self.heads}"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout!r}; it must be at least 0 and below 1")
        if not abs(self.decay_bias) < 64:
            raise InputError(f"decay_bias is {self.decay_bias!r}; it must lie between -64 and 64")

    @property
    def value_size(self) -> int:
        """Value channels of a head: width / heads."""
        return self.width // self.heads

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values, with its format version.

        Returns:
            The fields by name, and "format".
        """
        return {"format": CONFIG_FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: object, source: str = "this configuration") -> ModelConfig:
        """The configuration that `to_dict` wrote.

        Args:
            values: Parsed JSON.
            source: Where it was read from, for error messages.

        Returns:
            The validated configuration.

        Raises:
            FileError: It is not a mapping, of another format version, or its fields are not those of ModelConfig.
        """
        if not isinstance(values, dict):
            raise FileError(f"{source} holds {type(values).__name__}; expected a JSON object")
        fields = dict(cast("dict[str, Any]", values))
        version = fields.pop("format", None)
        if version != CONFIG_FORMAT:
            raise FileError(
                f"{source} has format {version!r}; this statesize reads format {CONFIG_FORMAT}."
                " Use the statesize that wrote it, or train the model again"
            )
        types: dict[str, type] = get_type_hints(cls)
        if types.keys() != fields.keys():
            raise FileError(
                f"{source} lacks {sorted(types.keys() - fields.keys())} and has unknown"
                f" {sorted(fields.keys() - types.keys())}; it is damaged or not a statesize model"
            )
        for name, value in fields.items():
            if not isinstance(value, (int, float) if types[name] is float else types[name]):
                raise FileError(f"{source} has {name} = {value!r}; expected {types[name].__name__}")
        try:
            return cls(**fields)
        except InputError as error:
            raise FileError(f"{source}: {error}") from error
