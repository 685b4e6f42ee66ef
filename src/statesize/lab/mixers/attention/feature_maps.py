"""Linear attention as published, with a normaliser: the features of Katharopoulos, of Based and of Hedgehog."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from statesize.lab.mixers.attention.normalised import NormalisedLinearAttention
from statesize.lab.mixers.config import ModelConfig


class LinearTransformer(NormalisedLinearAttention):
    """Normalised linear attention with φ(x) = 1 + elu(x), without short convolution and without norm per head.

    Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", ICML 2020.
    """

    kind = "linear-transformer"
    convolved = False
    normed = False


class Based(LinearTransformer):
    """Features whose products are the Taylor series 1 + s + s² / 2 of e^s with s = q·k / √n.

    Arora et al., "Simple Linear Attention Language Models Balance the Recall-Throughput Tradeoff", ICML 2024.
    """

    kind = "based"

    @property
    def feature_size(self) -> int:
        """1, all entries and all products of two entries: 1 + n + n²."""
        return 1 + self.key_size + self.key_size**2

    def features(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """φ of queries and keys, (S, H, L, n) to (S, H, L, 1 + n + n²)."""
        return _taylor(query), _taylor(key)


class Hedgehog(LinearTransformer):
    """Features softmax([W x, −W x]), with matrices W of their own for the queries and the keys of each head.

    Zhang et al., "The Hedgehog & the Porcupine: Expressive Linear Attentions with Softmax Mimicry", ICLR 2024.

    Args:
        config: Shape of the model.
    """

    kind = "hedgehog"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        shape = (config.heads, config.key_size, config.key_size)
        self.query_map = nn.Parameter(torch.empty(shape))
        self.key_map = nn.Parameter(torch.empty(shape))
        self.set_initial_values()

    @property
    def feature_size(self) -> int:
        """Two for each entry, 2n."""
        return 2 * self.key_size

    def initial_values(self) -> dict[str, Tensor]:
        """W starts as the identity."""
        identity = torch.eye(self.key_size).expand_as(self.query_map)
        return {"query_map": identity, "key_map": identity}

    def features(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """φ of queries and keys, (S, H, L, n) to (S, H, L, 2n)."""
        return _two_sided(query @ self.query_map), _two_sided(key @ self.key_map)


def _taylor(vectors: Tensor) -> Tensor:
    scaled = vectors * vectors.shape[-1] ** -0.25
    products = (scaled.unsqueeze(-1) * scaled.unsqueeze(-2)).flatten(-2) * 2**-0.5
    return torch.cat([torch.ones_like(scaled[..., :1]), scaled, products], -1)


def _two_sided(vectors: Tensor) -> Tensor:
    return torch.cat([vectors, -vectors], -1).softmax(-1)
