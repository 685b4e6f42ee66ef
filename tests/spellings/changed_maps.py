"""Attention whose maps are no softmax, or are changed after it."""

import math

import torch
from spellings.projections import HEADS, WIDTH, Projected
from spellings.softmax_attention import later, softmax_maps
from torch import nn


class Mapped(Projected):
    """A layer that is written by its maps."""

    def definition(self, hidden):
        return self.maps(hidden)

    def scores(self, hidden):
        query, key, _ = self.heads(hidden)
        return query @ key.mT / math.sqrt(query.shape[-1])

    def forward(self, hidden):
        return self.joined(self.maps(hidden) @ self.heads(hidden)[2])


class Sigmoid(Mapped):
    def maps(self, hidden):
        return torch.sigmoid(self.scores(hidden) - math.log(hidden.shape[1])).tril()


class SquaredRelu(Mapped):
    def maps(self, hidden):
        return self.scores(hidden).relu().square().tril()


class ExpAndSum(Projected):
    definition = softmax_maps

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        weights = torch.exp(query @ key.mT / math.sqrt(query.shape[-1])).tril()
        return self.joined((weights @ value) / weights.sum(-1, keepdim=True))


class LogSumExp(Projected):
    definition = softmax_maps

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        scores = (query @ key.mT / math.sqrt(query.shape[-1])).masked_fill(later(hidden.shape[1]), -math.inf)
        return self.joined((scores - scores.logsumexp(-1, keepdim=True)).exp() @ value)


class Renormalised(Projected):
    definition = softmax_maps

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1).tril()
        weights = weights / weights.sum(-1, keepdim=True)
        return self.joined(weights @ value)


class LearnedSink(Mapped):
    def __init__(self):
        super().__init__()
        self.sink = nn.Parameter(torch.randn(HEADS))

    def maps(self, hidden):
        scores = self.scores(hidden).masked_fill(later(hidden.shape[1]), -math.inf)
        sink = self.sink[:, None, None].expand(*scores.shape[:3], 1)
        return torch.cat([sink, scores], -1).softmax(-1)[..., 1:]


class TalkingHeads(Mapped):
    def __init__(self):
        super().__init__()
        self.heads_to_heads = nn.Parameter(torch.randn(HEADS, HEADS))

    def maps(self, hidden):
        return torch.einsum("bhij,hg->bgij", softmax_maps(self, hidden), self.heads_to_heads)


class TopK(Mapped):
    def maps(self, hidden):
        weights = softmax_maps(self, hidden)
        kept = torch.where(weights >= weights.topk(4, -1).values[..., -1:], weights, 0.0)
        return kept / kept.sum(-1, keepdim=True)


class GatedMaps(Mapped):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(WIDTH, HEADS)

    def maps(self, hidden):
        return softmax_maps(self, hidden) * self.gate(hidden).sigmoid().mT[:, :, None]


class Cosine(Mapped):
    def scores(self, hidden):
        query, key, _ = self.heads(hidden)
        return nn.functional.normalize(query, dim=-1) @ nn.functional.normalize(key, dim=-1).mT

    def maps(self, hidden):
        return self.scores(hidden).tril() / torch.arange(1, hidden.shape[1] + 1)[:, None]


class GatedOutput(Projected):
    """A gate and a norm follow the map."""

    definition = softmax_maps

    def __init__(self):
        super().__init__()
        self.gate, self.norm = nn.Linear(WIDTH, WIDTH), nn.RMSNorm(WIDTH // HEADS)

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        weights = torch.exp(query @ key.mT / math.sqrt(query.shape[-1])).tril()
        mixed = self.norm((weights / weights.sum(-1, keepdim=True)) @ value)
        return self.output(mixed.transpose(1, 2).flatten(2) * nn.functional.silu(self.gate(hidden)))


SPELLINGS = (
    Sigmoid,
    SquaredRelu,
    ExpAndSum,
    LogSumExp,
    Renormalised,
    LearnedSink,
    TalkingHeads,
    TopK,
    GatedMaps,
    Cosine,
    GatedOutput,
)
