"""Mixers without heads: each channel has a T of its own, as in state-space models and long convolutions."""

from __future__ import annotations

from torch import Tensor

from statesize.mixers.mixer import Mixer


class ChannelMixer(Mixer):
    """A mixer with one T for each of the d channels; the heads only group the channels of the output's norm.

    Args:
        config: Shape of the model.
        sizes: Widths of what the input is projected to.
    """

    @property
    def multiplicity(self) -> int:
        """Value channels that share one T: 1."""
        return 1

    def forward(self, hidden: Tensor) -> Tensor:
        """Mixes whole sequences.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, L, d).
        """
        return self._emit_channels(self.mixed_values(hidden).squeeze(-1).transpose(1, 2))

    def _emit_channels(self, mixed: Tensor) -> Tensor:
        """Norm and output projection: (..., d) to (..., d)."""
        return self._emit(mixed.reshape(*mixed.shape[:-1], self.heads, self.value_size))
