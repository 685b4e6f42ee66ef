"""Attention probabilities as an Observation: groups of heads, what the cache must hold, and what is refused."""

import pytest
import torch

from statesize.adapters.probabilities import observed_probabilities
from statesize.errors import ModelError


def observed(probabilities, values, seen=None, window=None):
    mixed = torch.zeros(*probabilities.shape[:3], values.shape[-1])
    return observed_probabilities("mixer", probabilities, values, mixed, seen=seen, window=window, state_bytes=0)


def test_each_key_value_head_serves_consecutive_heads():
    values = torch.arange(2.0)[None, :, None, None].expand(1, 2, 3, 5)
    observation = observed(torch.eye(3).expand(1, 6, 3, 3), values)
    assert observation.values[0, :, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert (observation.batch_shape, observation.multiplicity) == ((1, 6), 5)


def test_the_state_is_what_later_queries_may_still_see():
    # Position 0 is seen by all (a sink), the others by the next one only.
    seen = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]).bool()
    values = torch.ones(1, 1, 5, 1)
    by_mask = observed(torch.eye(5)[None, None], values, seen=seen)
    by_weight = observed(seen.float()[None, None], values)
    for observation in (by_mask, by_weight):
        assert observation.operator(slice(None)).state_size().tolist() == [0, 1, 2, 2, 2]
        assert observation.state_size == 2


def test_a_cache_that_grows_has_no_final_size():
    probabilities, values = torch.ones(1, 1, 4, 4).tril(), torch.ones(1, 1, 4, 1)
    assert observed(probabilities, values).state_size is None
    assert observed(probabilities, values, window=9).state_size == 8


def test_later_positions_and_other_positions_are_refused():
    with pytest.raises(ModelError, match="Mixer mixer attends to later positions"):
        observed(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 1))
    with pytest.raises(ModelError, match="from 4 positions to 6: cross-attention or a filled cache"):
        observed(torch.ones(1, 1, 4, 6), torch.ones(1, 1, 6, 1))
