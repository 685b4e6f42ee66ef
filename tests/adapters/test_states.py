"""The states of recurrences, against what the layers themselves keep when they step."""

import pytest
import torch
from oracles.tiny_families import tiny, token_ids

import statesize as ss
from statesize.lab.mixers import LanguageModel, ModelConfig


def states(model, input_ids, positions):
    """The states of each mixer that was captured before some tokens."""
    return [
        captured.operator.states(captured.values(), positions)
        for captured in ss.capture(model, input_ids)
        if isinstance(captured.operator, ss.Recurrence)
    ]


@pytest.mark.parametrize("name", ["la", "gla", "gla-s6", "s6"])
def test_states_are_those_of_the_layer_s_own_cache(name):
    model = LanguageModel(ModelConfig(name, 16, width=12, heads=2, key_size=4, layers=1)).double().eval()
    tokens = torch.randint(0, 16, (2, 11), generator=torch.Generator().manual_seed(0))
    (held,) = states(model, tokens, [7, 3])
    caches, kept = model.initial_caches(2), []
    with torch.no_grad():
        for token in tokens.T[:7]:
            _, caches = model.step(token, caches)
            kept.append(caches[1][1])
    for place, state in enumerate((kept[6], kept[2])):
        found = held[:, :, place]
        expected = state if name != "s6" else state[..., None]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", ["mamba", "mamba2", "qwen3_next"])
def test_states_are_those_of_the_model_s_cache(family):
    model, ids = tiny(family), token_ids(2)
    with torch.no_grad():
        output = model(input_ids=ids[:, :9], use_cache=True)
    cache = output.cache_params if "cache_params" in output else output.past_key_values
    held = states(model, ids, [9])
    kept = [layer.recurrent_states[0] for layer in cache.layers if hasattr(layer, "recurrent_states")]
    assert len(held) == len(kept) > 0
    for found, expected in zip(held, kept, strict=True):
        state = found[:, :, 0].double()
        state = state if family == "qwen3_next" else state.mT  # Mamba keeps channels before states
        torch.testing.assert_close(state.reshape(expected.shape), expected.double(), rtol=1e-4, atol=1e-5)
