"""Softmax attention, as researchers write it."""

import math

import torch
from spellings.projections import HEADS, WIDTH, Projected
from torch import nn
from torch.nn import functional as F


def later(length):
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def softmax_maps(layer, hidden, bias=0.0):
    """The definition: softmax(q kᵀ / √d + bias) over what is not later."""
    query, key, _ = layer.heads(hidden)
    key = key.repeat_interleave(HEADS // key.shape[1], 1)
    scores = query @ key.mT / math.sqrt(query.shape[-1]) + bias
    return scores.masked_fill(later(hidden.shape[1]), -math.inf).softmax(-1)


class Fused(Projected):
    definition = softmax_maps

    def forward(self, hidden):
        return self.joined(F.scaled_dot_product_attention(*self.heads(hidden), is_causal=True))


class MaskedFill(Projected):
    definition = softmax_maps

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        scores = (query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5
        weights = F.softmax(scores.masked_fill(later(hidden.shape[1]), float("-inf")), dim=-1)
        return self.joined(weights @ value)


class AddedMask(Projected):
    definition = softmax_maps

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        mask = torch.full((hidden.shape[1],) * 2, -math.inf).triu(1)
        return self.joined(torch.softmax(torch.matmul(query / math.sqrt(query.shape[-1]), key.mT) + mask, -1) @ value)


class Einsum(Projected):
    definition = softmax_maps

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        scores = torch.einsum("bhid,bhjd->bhij", query, key) / query.shape[-1] ** 0.5
        weights = scores.masked_fill(later(hidden.shape[1]), -1e9).softmax(-1)
        return self.joined(torch.einsum("bhij,bhjd->bhid", weights, value))


class FlattenedHeads(Projected):
    definition = softmax_maps

    def forward(self, hidden):
        query, key, value = (part.flatten(0, 1) for part in self.heads(hidden))
        mask = torch.zeros(hidden.shape[1], hidden.shape[1]).masked_fill(later(hidden.shape[1]), -math.inf)
        scores = torch.baddbmm(mask.expand(len(query), -1, -1), query, key.mT, alpha=query.shape[-1] ** -0.5)
        return self.joined(torch.bmm(scores.softmax(-1), value).unflatten(0, (-1, HEADS)))


class GroupedQueries(Projected):
    definition = softmax_maps

    def __init__(self):
        super().__init__(key_heads=1)

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return self.joined(scores.masked_fill(later(hidden.shape[1]), -math.inf).softmax(-1) @ value.expand_as(query))


class LinearBias(Projected):
    def definition(self, hidden):
        return softmax_maps(self, hidden, self.bias(hidden.shape[1]))

    def bias(self, length):
        distance = torch.arange(length)[None] - torch.arange(length)[:, None]
        return distance * torch.tensor([0.5, 0.25, 0.125])[:, None, None]

    def forward(self, hidden):
        query, key, value = self.heads(hidden)
        scores = query @ key.mT / math.sqrt(query.shape[-1]) + self.bias(hidden.shape[1])
        return self.joined(scores.masked_fill(later(hidden.shape[1]), -math.inf).softmax(-1) @ value)


class OneProjection(nn.Module):
    """Queries, keys and values of one projection, positions first."""

    def __init__(self):
        super().__init__()
        self.project, self.output = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)

    def heads(self, hidden):
        return tuple(part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.project(hidden).chunk(3, -1))

    definition = softmax_maps

    def forward(self, hidden):
        query, key, value = (part.movedim(2, 0) for part in self.heads(hidden))  # (L, S, head, channel)
        scores = torch.einsum("ibhd,jbhd->bhij", query, key) / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(later(hidden.shape[1]), -math.inf).softmax(-1)
        return self.output(torch.einsum("bhij,jbhd->ibhd", weights, value).flatten(2)).transpose(0, 1)


SPELLINGS = (Fused, MaskedFill, AddedMask, Einsum, FlattenedHeads, GroupedQueries, LinearBias, OneProjection)
