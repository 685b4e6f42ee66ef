"""Softmax attention over a window against its formula."""

import pytest
import torch

import experiments.variation.mixers  # noqa: F401
from statesize.lab.mixers import LanguageModel, ModelConfig


@pytest.mark.parametrize("window", [8, 1])
def test_it_is_the_formula_of_vaswani(window):
    config = ModelConfig("sliding", 8, width=12, heads=2, key_size=5, layers=1, window=window)
    mixer = LanguageModel(config, torch.Generator().manual_seed(1)).double().blocks[0].mixer
    hidden = torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    query, key, value = (hidden @ mixer.projection.weight.mT).split([10, 10, 12], -1)
    heads = []
    for head in range(2):
        q, k, v = (part.chunk(2, -1)[head] for part in (query, key, value))
        seen = torch.ones(40, 40, dtype=torch.bool).tril().triu(1 - window)
        heads.append((q @ k.mT / 5**0.5).masked_fill(~seen, -torch.inf).softmax(-1) @ v)
    expected = torch.cat(heads, -1) @ mixer.output_projection.weight.mT
    torch.testing.assert_close(mixer(hidden), expected, rtol=1e-10, atol=1e-12)
    assert sum(part.numel() for part in mixer.parameters()) == (10 + 10 + 12 + 12) * 12
