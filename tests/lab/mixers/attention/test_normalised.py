"""Normalised linear attention against the formula of its paper."""

import torch
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
