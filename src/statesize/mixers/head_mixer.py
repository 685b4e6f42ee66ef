"""Mixers with heads: queries, keys and values, as in attention."""

from __future__ import annotations

from torch import Tensor

from statesize.mixers.config import ModelConfig
from statesize.mixers.mixer import Mixer


class HeadMixer(Mixer):
    """A mixer whose input is projected to queries, keys and values; the value channels of a head share one T.

    Args:
        config: Shape of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        keys = config.heads * config.key_size
        super().__init__(config, [keys, keys, config.width])

    @property
    def multiplicity(self) -> int:
        """Value channels that share one T: d_v."""
        return self.value_size

    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T: the convolved values of each head.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, H, L, d_v).
        """
        return self._query_key_value(hidden)[2]

    def forward(self, hidden: Tensor) -> Tensor:
        """Mixes whole sequences.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, L, d).
        """
        return self._emit(self.mixed_values(hidden).transpose(1, 2))

    def _query_key_value(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Convolved queries, keys and values, (S, H, L, n), (S, H, L, n) and (S, H, L, d_v)."""
        query, key, value = (self._by_head(part) for part in self._convolved(hidden))
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def _step_query_key_value(self, hidden: Tensor, cache: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """The same for one token, (S, H, n), (S, H, n) and (S, H, d_v), with the cache of the convolution."""
        parts, cache = self._step_convolved(hidden, cache)
        query, key, value = (self._by_head(part) for part in parts)
        return (query, key, value), cache

    def _by_head(self, part: Tensor) -> Tensor:
        return part.reshape(*part.shape[:-1], self.heads, -1)
