"""Normalised linear attention against the formula of its paper."""

import math

import pytest
import torch
from oracles.layers import HEADS, KEYS, LENGTH, WIDTH, by_head, layer_and_input
from torch.nn import functional

from statesize.lab.mixers import LanguageModel, ModelConfig


def test_it_is_the_formula_of_katharopoulos():
    config = ModelConfig("nla", 8, width=12, heads=2, key_size=5, layers=1)
    mixer = LanguageModel(config, torch.Generator().manual_seed(1)).double().blocks[0].mixer
    hidden = torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    query, key, value = mixer._query_key_value(hidden)
    scores = (functional.elu(query) + 1) @ (functional.elu(key) + 1).mT
    weights = functional.normalize(scores.tril(), p=1, dim=-1)
    torch.testing.assert_close(mixer.operator(hidden).dense(), weights, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mixer.mixed_values(hidden), weights @ value, rtol=1e-10, atol=1e-12)
    assert bool((weights.sum(-1) - 1).abs().max() < 1e-12)


def elu(mixer, query, key):
    return torch.where(query > 0, query + 1, query.exp()) @ torch.where(key > 0, key + 1, key.exp()).mT


def taylor(mixer, query, key):
    scores = query @ key.mT / math.sqrt(KEYS)
    return 1 + scores + scores**2 / 2


def hedgehog(mixer, query, key):
    features = []
    for vectors, weight in ((query, mixer.query_map), (key, mixer.key_map)):
        logits = torch.einsum("shln,hnm->shlm", vectors, weight)
        both = torch.cat([logits.exp(), (-logits).exp()], -1)
        features.append(both / both.sum(-1, keepdim=True))
    return features[0] @ features[1].mT


@pytest.mark.parametrize(
    ("name", "similarity", "size"),
    [("linear-transformer", elu, KEYS), ("based", taylor, 1 + KEYS + KEYS**2), ("hedgehog", hedgehog, 2 * KEYS)],
)
def test_it_is_the_formula_of_its_paper(name, similarity, size):
    mixer, hidden = layer_and_input(name)
    projected = hidden @ mixer.projection.weight.mT
    query, key, value = (by_head(part).transpose(1, 2) for part in projected.split([HEADS * KEYS] * 2 + [WIDTH], -1))
    weights = similarity(mixer, query, key).tril()
    weights = weights / weights.sum(-1, keepdim=True)
    expected = (weights @ value).transpose(1, 2).flatten(-2) @ mixer.output_projection.weight.mT
    torch.testing.assert_close(mixer(hidden), expected, rtol=1e-9, atol=1e-10)
    operator = mixer.operator(hidden)
    torch.testing.assert_close(operator.dense(), weights, rtol=1e-9, atol=1e-10)
    assert operator.state_size().tolist() == [size] * LENGTH
