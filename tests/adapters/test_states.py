"""The states of recurrences, against what the layers themselves keep when they step."""

import pytest
import torch
from oracles.tiny_families import tiny, token_ids

import statesize as ss


@pytest.mark.parametrize("family", ["mamba", "mamba2", "qwen3_next"])
def test_states_are_those_of_the_model_s_cache(family):
    model, ids = tiny(family), token_ids(2)
    with torch.no_grad():
        output = model(input_ids=ids[:, :9], use_cache=True)
    cache = output.cache_params if "cache_params" in output else output.past_key_values
    held = [
        captured.operator.states(captured.values(), [9])
        for captured in ss.capture(model, ids)
        if isinstance(captured.operator, ss.Recurrence)
    ]
    kept = [layer.recurrent_states[0] for layer in cache.layers if hasattr(layer, "recurrent_states")]
    assert len(held) == len(kept) > 0
    for found, expected in zip(held, kept, strict=True):
        state = found[:, :, 0].double()
        state = state if family == "qwen3_next" else state.mT  # Mamba keeps channels before states
        torch.testing.assert_close(state.reshape(expected.shape), expected.double(), rtol=1e-4, atol=1e-5)
