"""Linear attention with a normaliser (NLA): positive features of queries and keys, of elu, of Based, of Hedgehog."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.attention.chunk import mix_chunked
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.mixer import HeadMixer, State
from statesize.operators import Recurrence


class NormalisedLinearAttention(HeadMixer):
    """T[i, j] = φ(q_i)·φ(k_j) / Σ_{s ≤ i} φ(q_i)·φ(k_s) with φ(x) = 1 + elu(x); n = key_size numbers of state.

    Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", ICML 2020.
    Differs from the paper: short convolution, norm per head.
    """

    kind = "nla"

    @property
    def feature_size(self) -> int:
        """Features of a query or a key, which are the numbers of state."""
        return self.key_size

    def features(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """φ of queries and keys, (S, H, L, n) to (S, H, L, features)."""
        return 1 + functional.elu(query), 1 + functional.elu(key)

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every head at one input, of batch shape (sequence, head)."""
        readout, key, _ = self._normalised(hidden)
        return Recurrence(torch.ones_like(key[..., :1]), key, readout)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, (S, H, L, d_v)."""
        readout, key, value = self._normalised(hidden)
        return mix_chunked(readout, key, value, None)

    def initial_state(self, batch: int) -> State:
        """Zeros: weighted values (S, H, n, d_v), and the normaliser (S, H, n)."""
        normaliser = self.projection.weight.new_zeros(batch, self.heads, self.feature_size)
        return normaliser.new_zeros(*normaliser.shape, self.value_size), normaliser

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, H, d_v), and the next state."""
        (query, key, value), (weighted, normaliser) = parts, state
        query, key = (part.squeeze(-2) for part in self.features(query.unsqueeze(-2), key.unsqueeze(-2)))
        normaliser = normaliser + key
        weighted = weighted + key.unsqueeze(-1) * value.unsqueeze(-2)
        readout = query / (query * normaliser).sum(-1, keepdim=True)
        return (readout.unsqueeze(-2) @ weighted).squeeze(-2), (weighted, normaliser)

    def _normalised(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of queries over what they sum to, features of keys, values, (S, H, L, ·)."""
        query, key, value = self._query_key_value(hidden)
        query, key = self.features(query, key)
        return query / (query * key.cumsum(-2)).sum(-1, keepdim=True), key, value


class LinearTransformer(NormalisedLinearAttention):
    """Normalised linear attention with φ(x) = 1 + elu(x), without short convolution and without norm per head.

    Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", ICML 2020.
    Differs from the paper: no biases.
    """

    kind = "linear-transformer"
    convolved = False
    normed = False


class Based(LinearTransformer):
    """Normalised linear attention of features whose products are the series 1 + s + s² / 2 of e^s, s = q·k / √n.

    Arora et al., "Simple Linear Attention Language Models Balance the Recall-Throughput Tradeoff", ICML 2024.
    Differs from the paper: no rotary positions, no convolutions; no rank is above 1 + n + n (n + 1) / 2.
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
    """Normalised linear attention with φ(x) = softmax([W x, −W x]), each head with a W for queries and one for keys.

    Zhang et al., "The Hedgehog & the Porcupine: Expressive Linear Attentions with Softmax Mimicry", ICLR 2024. Differs
    from the paper: exp divided by its sum; trained from the start.

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
