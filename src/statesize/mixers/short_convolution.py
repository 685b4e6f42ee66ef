"""The short causal convolution that lets a mixer see a token's neighbours before it mixes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ShortConvolution(nn.Module):
    """Causal depthwise convolution y_t = Σ_s w_s u_{t−s}, one kernel of `size` taps for each channel.

    It is linear: a mixer's operator acts on what comes out of it.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(channels, size))
        """Kernels (channels, size); the last tap is the present token."""
        nn.init.uniform_(self.weight, -(size**-0.5), size**-0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolves whole sequences.

        Args:
            inputs: (S, L, channels).

        Returns:
            (S, L, channels); what lies before the sequence is 0.
        """
        length = inputs.shape[-2]
        padded = functional.pad(inputs, (0, 0, self.size - 1, 0))
        outputs = padded[..., :length, :] * self.weight[:, 0]
        for tap in range(1, self.size):
            outputs = torch.addcmul(outputs, padded[..., tap : tap + length, :], self.weight[:, tap])
        return outputs

    def step(self, inputs: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Convolves one more token.

        Args:
            inputs: (S, channels).
            cache: The previous size − 1 inputs, (S, size − 1, channels), oldest first.

        Returns:
            The output (S, channels) and the new cache.
        """
        window = torch.cat([cache, inputs[:, None]], dim=1)
        return (window * self.weight.T).sum(dim=1), window[:, 1:]

    def initial_cache(self, batch: int) -> Tensor:
        """The cache before the first token: zeros.

        Args:
            batch: Number of sequences S.

        Returns:
            (S, size − 1, channels).
        """
        return self.weight.new_zeros(batch, self.size - 1, self.weight.shape[0])
