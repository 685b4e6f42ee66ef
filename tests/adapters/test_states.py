"""The states of recurrences, against what the layers themselves keep when they step."""

import pytest
import torch
from oracles.tiny_families import tiny, token_ids

import statesize as ss
from statesize.lab.mixers import LanguageModel, ModelConfig


@pytest.mark.parametrize("name", ["la", "gla", "gla-s6", "s6", "s4d"])
def test_states_are_those_of_the_layer_s_own_cache(name):
    model = LanguageModel(ModelConfig(name, 16, width=12, heads=2, key_size=4, layers=1)).double().eval()
    tokens = torch.randint(0, 16, (2, 11), generator=torch.Generator().manual_seed(0))
    held = ss.metrics.states(model, tokens, positions=[7, 3])["layers.0.mixer"]
    caches, kept = model.initial_caches(2), []
    with torch.no_grad():
        for token in tokens.T[:7]:
            _, caches = model.step(token, caches)
            kept.append(caches[1].state)
    for place, state in enumerate((kept[6], kept[2])):
        found = held[:, :, place]
        expected = state if name not in ("s6", "s4d") else state[..., None]
        # S4D keeps one mode of each conjugate pair.
        torch.testing.assert_close(found[:, :, : expected.shape[2]], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", ["mamba", "mamba2", "qwen3_next"])
def test_states_are_those_of_the_model_s_cache(family):
    model, ids = tiny(family), token_ids(2)
    with torch.no_grad():
        output = model(input_ids=ids[:, :9], use_cache=True)
    cache = output.cache_params if "cache_params" in output else output.past_key_values
    held = list(ss.metrics.states(model, ids, positions=[9]).values())
    kept = [layer.recurrent_states[0] for layer in cache.layers if hasattr(layer, "recurrent_states")]
    assert len(held) == len(kept) > 0
    for found, expected in zip(held, kept, strict=True):
        state = found[:, :, 0].double()
        state = state if family == "qwen3_next" else state.mT  # Mamba keeps channels before states
        torch.testing.assert_close(state.reshape(expected.shape), expected.double(), rtol=1e-4, atol=1e-5)


def test_models_without_recurrences_are_refused():
    model = LanguageModel(ModelConfig("sa", 16, width=8, heads=2, layers=1))
    with pytest.raises(ss.errors.ModelError, match="must have a recurrence with a state, got sa only"):
        ss.metrics.states(model, torch.arange(8)[None])
