"""Gramians of states, against sums of the dense definition in float64."""

import pytest
import torch

from statesize.lab.compression.proposals import measure_gramians
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.operators import Recurrence
from statesize.reduction.bases import Gramians


@pytest.mark.parametrize("name", ["la", "wla", "gla", "gla-s6"])
def test_gramians_are_the_sums_of_the_definition(name):
    config = ModelConfig(name, 16, width=8, heads=2, layers=1, key_size=3, decay_bias=-2.0)
    model = LanguageModel(config, torch.Generator().manual_seed(0)).double()
    ids = torch.randint(0, 16, (3, 40), generator=torch.Generator().manual_seed(1))
    found = measure_gramians(model, ids.split(2))[0]
    mixer = model.blocks[0].mixer
    hidden = model.blocks[0].mixer_norm(model._embed(ids, slice(0, 40)))
    operator, values = mixer.operator(hidden), mixer.values(hidden)
    states = operator.states(values, [16, 32])  # after the first two chunks of 16 tokens
    torch.testing.assert_close(found.state, torch.einsum("shpnv,shpmv->hnm", states, states))
    weights = mixer.mixed_values(hidden)[:, :, 8:].square().sum(-1)
    query = operator.C[:, :, 8:]
    torch.testing.assert_close(found.reading, torch.einsum("shln,shlm,shl->hnm", query, query, 1 / weights))


def test_gramians_of_s6_take_the_channels_of_a_head_together():
    model = LanguageModel(ModelConfig("s6", 16, width=6, heads=2, layers=1, key_size=3)).double()
    ids = torch.randint(0, 16, (2, 20), generator=torch.Generator().manual_seed(1))
    found = measure_gramians(model, [ids])[0]
    mixer = model.blocks[0].mixer
    hidden = model.blocks[0].mixer_norm(model._embed(ids, slice(0, 20)))
    states = mixer.operator(hidden).states(mixer.values(hidden), [16])[:, :, 0, :, 0].unflatten(1, (2, 3))
    torch.testing.assert_close(found.state, torch.einsum("shvn,shvm->hnm", states, states))
    weights = mixer.mixed_values(hidden).squeeze(-1).unflatten(1, (2, 3)).square().sum(2)[:, :, 8:]
    query = mixer.operator(hidden).C[:, 0, 8:]
    torch.testing.assert_close(found.reading, torch.einsum("sln,slm,shl->hnm", query, query, 1 / weights))


def test_the_model_is_left_as_it_was():
    model = LanguageModel(ModelConfig("la,sa", 16, width=8, heads=2, layers=2, key_size=3))
    before = vars(model.blocks[0].mixer).copy()
    assert list(measure_gramians(model, [torch.arange(12)[None]])) == [0]
    assert vars(model.blocks[0].mixer) == before


@pytest.mark.parametrize("length", [16, 39, 48])
def test_one_decay_a_head_and_equal_decays_of_its_numbers_are_the_same(length):
    generator = torch.Generator().manual_seed(0)
    B, C, values, outputs = torch.randn(4, 2, 4, length, 5, generator=generator, dtype=torch.float64)
    decay = torch.rand(2, 4, length, 1, generator=generator, dtype=torch.float64)
    decay[:, :, 7] = 0
    by_chunks, by_tokens = Gramians.zeros(2, 5), Gramians.zeros(2, 5)
    one, many = Recurrence(decay, B, C), Recurrence(decay.expand(2, 4, length, 5), B, C)
    by_chunks.add(one, values, outputs, 2)
    by_tokens.add(many, values, outputs, 2)
    torch.testing.assert_close(by_chunks.state, by_tokens.state)
    torch.testing.assert_close(one.apply(values), many.apply(values))
