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


def test_what_a_class_does_beside_mixing_is_noted():
    class ZayaAttention(torch.nn.Module):
        pass

    probabilities, values = torch.ones(1, 1, 4, 4).tril(), torch.ones(1, 1, 4, 1)
    assert joined(observed(probabilities, values).notes) == ""
    assert observed(probabilities, values, module=ZayaAttention()).notes == (Note(Code.VALUES),)


@pytest.mark.parametrize(("entries", "code"), [(4, Code.LATER_POSITIONS), (6, Code.NOT_MEASURED)])
def test_later_positions_and_other_positions_are_refused(entries, code):
    with pytest.raises(ModelError) as refused:
        observed(torch.ones(1, 1, 4, entries), torch.ones(1, 1, entries, 1))
    assert Note.of(refused.value).code is code


AT = torch.arange(7)
CAUSAL = AT <= AT[:, None]
BAND = CAUSAL & (AT > AT[:, None] - 3)


@pytest.mark.parametrize(
    ("seen", "size", "held"),
    [
        (CAUSAL, None, [0, 1, 2, 3, 4, 5, 6]),
        (CAUSAL & (AT // 3 == AT[:, None] // 3), 2, [0, 1, 2, 0, 1, 2, 0]),
        (BAND, 2, [0, 1, 2, 2, 2, 2, 2]),
        # The first token is seen by all, a sink.
        (BAND | (CAUSAL & (AT < 1)), 3, [0, 1, 2, 3, 3, 3, 3]),
    ],
    ids=["causal", "chunks", "band", "sink"],
)
def test_the_state_is_what_later_queries_may_still_see(seen, size, held):
    values = torch.ones(1, 1, 7, 1)
    for observation in (
        observed(torch.eye(7)[None, None], values, seen=seen),
        observed(seen.float()[None, None], values),
    ):
        assert observation.state_size == size
        assert observation.operator(slice(None)).state_size().tolist() == held


def test_a_selection_by_content_needs_the_whole_cache_or_its_window():
    # Each query picks two of the keys; nothing says beforehand which ones.
    seen = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 0, 1]]).bool()
    values = torch.ones(1, 1, 5, 1)
    by_content = observed(torch.eye(5)[None, None], values, seen=seen)
    assert (by_content.state_size, by_content.operator(slice(None)).state_size().tolist()) == (None, [0, 1, 2, 3, 4])
    assert observed(torch.eye(5)[None, None], values, seen=seen, window=4).state_size == 3
