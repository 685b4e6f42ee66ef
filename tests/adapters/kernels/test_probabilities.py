"""Attention probabilities as an Observation: groups of heads, what the cache must hold, and what is refused."""

import pytest
import torch

from statesize.adapters.kernels.plain_attention import AttentionCall
from statesize.adapters.kernels.probabilities import Mixing, observed_mixing
from statesize.codes import Code, Note, joined
from statesize.errors import ModelError


def observed(probabilities, values, seen=None, window=None, module=None):
    mixed = torch.zeros(*probabilities.shape[:3], values.shape[-1])
    call = AttentionCall(name="mixer", module=module or torch.nn.Identity(), values=values, mixed=mixed, window=window)
    mixing = Mixing(lambda: probabilities, probabilities.shape)
    return observed_mixing(call, mixing, len(probabilities[0, 0]), seen)


def test_each_key_value_head_serves_consecutive_heads():
    values = torch.arange(2.0)[None, :, None, None].expand(1, 2, 3, 5)
    observation = observed(torch.eye(3).expand(1, 6, 3, 3), values)
    assert observation.values[0, :, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert (observation.values.shape[:2], observation.found.multiplicity) == ((1, 6), 5)


def test_the_state_is_what_later_queries_may_still_see():
    # Position 0 is seen by all (a sink), the others by the next one only.
    seen = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]).bool()
    values = torch.ones(1, 1, 5, 1)
    by_mask = observed(torch.eye(5)[None, None], values, seen=seen)
    by_weight = observed(seen.float()[None, None], values)
    for observation in (by_mask, by_weight):
        assert observation.operator(slice(None)).state_size().tolist() == [0, 1, 2, 2, 2]
        assert observation.state_size == 2


def test_without_a_probe_the_only_copy_is_that_of_who_keeps_the_observation():
    probabilities, values = torch.ones(1, 1, 4, 4).tril(), torch.ones(1, 1, 4, 1)
    mixed = probabilities @ values
    call = AttentionCall(name="mixer", module=torch.nn.Identity(), values=values, mixed=mixed)
    observation = observed_mixing(call, Mixing(lambda: probabilities, probabilities.shape), 4)
    # `check_operator` then compares with the observation's own tensor.
    assert observation.mixed is mixed
    assert observation.probed is None


def test_what_a_class_does_beside_mixing_is_noted():
    class ZayaAttention(torch.nn.Module):
        pass

    probabilities, values = torch.ones(1, 1, 4, 4).tril(), torch.ones(1, 1, 4, 1)
    assert joined(observed(probabilities, values).notes) == ""
    assert observed(probabilities, values, module=ZayaAttention()).notes == (Note(Code.VALUES),)


def test_a_cache_that_grows_has_no_final_size():
    probabilities, values = torch.ones(1, 1, 4, 4).tril(), torch.ones(1, 1, 4, 1)
    assert observed(probabilities, values).state_size is None
    assert observed(probabilities, values, window=9).state_size == 8


def test_later_positions_and_other_positions_are_refused():
    with pytest.raises(ModelError, match="Mixer mixer attends to later positions"):
        observed(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 1))
    with pytest.raises(ModelError, match="from 4 to 6 entries, of a text of 4 tokens"):
        observed(torch.ones(1, 1, 4, 6), torch.ones(1, 1, 6, 1))


def test_a_selection_by_content_needs_the_whole_cache():
    # Each query picks two of the keys; nothing says beforehand which ones.
    seen = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 0, 1]]).bool()
    values = torch.ones(1, 1, 5, 1)
    assert observed(torch.eye(5)[None, None], values, seen=seen).operator(slice(None)).state_size().tolist() == [
        0, 1, 2, 3, 4,
    ]  # fmt: skip
    assert observed(torch.eye(5)[None, None], values, seen=seen, window=4).state_size == 3


def test_chunks_and_bands_are_structure():
    position = torch.arange(7)
    causal = position <= position[:, None]
    sinks = causal & ((position > position[:, None] - 3) | (position < 2))
    chunks = causal & (position // 3 == position[:, None] // 3)
    band = causal & (position > position[:, None] - 3)
    values = torch.ones(1, 1, 7, 1)
    sizes = [observed(torch.eye(7)[None, None], values, seen=seen).operator(slice(None)).state_size().tolist()
             for seen in (causal, chunks, band, sinks)]  # fmt: skip
    assert sizes == [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 0, 1, 2, 0], [0, 1, 2, 2, 2, 2, 2], [0, 1, 2, 3, 4, 4, 4]]
