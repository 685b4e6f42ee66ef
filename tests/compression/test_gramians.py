"""Gramians of states, against sums of the dense definition in float64."""

import pytest
import torch

from statesize.compression.gramians import measure_gramians
from statesize.mixers import LanguageModel, ModelConfig


@pytest.mark.parametrize("name", ["la", "wla", "gla", "gla-s6"])
def test_gramians_are_the_sums_of_the_definition(name):
    config = ModelConfig(name, 16, width=8, heads=2, layers=1, key_size=3, decay_bias=-2.0)
    model = LanguageModel(config, torch.Generator().manual_seed(0)).double()
    ids = torch.randint(0, 16, (3, 40), generator=torch.Generator().manual_seed(1))
    found = measure_gramians(model, ids.split(2))[0]
    mixer = model.blocks[0].mixer
    hidden = model.blocks[0].mixer_norm(model._embed(ids, slice(0, 40)))
    operator, values = mixer.operator(hidden), mixer.values(hidden)
    states = operator.states(values, [17, 33])  # after tokens 16 and 32
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
    states = mixer.operator(hidden).states(mixer.values(hidden), [17])[:, :, 0, :, 0].unflatten(1, (2, 3))
    torch.testing.assert_close(found.state, torch.einsum("shvn,shvm->hnm", states, states))
    weights = mixer.mixed_values(hidden).squeeze(-1).unflatten(1, (2, 3)).square().sum(2)[:, :, 8:]
    query = mixer.operator(hidden).C[:, 0, 8:]
    torch.testing.assert_close(found.reading, torch.einsum("sln,slm,shl->hnm", query, query, 1 / weights))


def test_hooks_leave_the_model_as_it_was():
    model = LanguageModel(ModelConfig("la,sa", 16, width=8, heads=2, layers=2, key_size=3))
    assert list(measure_gramians(model, [torch.arange(12)[None]])) == [0]
    assert not any(module._forward_pre_hooks for module in model.modules())
