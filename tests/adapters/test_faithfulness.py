"""Faithfulness: what differs from the model is found, named and refused."""

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from torch import nn

from statesize.adapters import capture, faithfulness, logits_difference
from statesize.adapters.faithfulness import bound, check_faithful, relative_difference, unfaithfulness
from statesize.adapters.observation import Observation, unchanged
from statesize.errors import InputError, ModelError
from statesize.operators import Dense


def observation(mixed, scale=1.0):
    matrix = torch.ones(1, 6, 4, 4).tril() * scale
    values = torch.ones(1, 6, 4, 2)
    return Observation(
        "mixer", "attention", (1, 6), lambda units: Dense(matrix[:, units]), values, mixed, unchanged, 2, None, 0
    )


def cumulated():
    return torch.arange(1.0, 5.0)[None, None, :, None].expand(1, 6, 4, 2).clone()


def test_differences_are_relative_to_the_largest_value():
    assert unfaithfulness(observation(cumulated())) == 0
    assert unfaithfulness(observation(cumulated(), 1.01)) == pytest.approx(0.01, abs=1e-6)


def test_the_output_after_the_kernel_is_compared():
    gated = observation(cumulated() * 3)
    gate = Observation(**{**vars(gated), "passed_on": lambda mixed, units: mixed * 3})
    assert unfaithfulness(gated) == pytest.approx(2 / 3)
    assert unfaithfulness(gate) == 0


def test_what_is_not_finite_names_mixer_sequence_unit_and_position():
    mixed = cumulated()
    mixed[0, 5, 2, 1] = torch.nan
    with pytest.raises(InputError, match=r"Mixer mixer, sequence 0, unit 5: .* first at position 2"):
        unfaithfulness(observation(mixed))


def test_relative_difference_of_zeros():
    zero, one = torch.zeros(2), torch.ones(2)
    assert [relative_difference(*pair) for pair in ((zero, zero), (one, zero), (zero, one))] == [0, float("inf"), 1]
    assert relative_difference(torch.zeros(0), torch.zeros(0)) == 0


@pytest.mark.parametrize("difference", [1.1e-3, float("nan"), float("inf")])
def test_beyond_the_bound_the_layer_is_named(difference):
    check_faithful("layers.3", 1e-3, "T u", 1e-3)
    with pytest.raises(ModelError, match=r"Mixer layers\.3: T u differs .* at most 1\.0e-03 is rounding"):
        check_faithful("layers.3", difference, "T u", 1e-3)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float64, 2**-10), (torch.float32, 2**-10), (torch.float16, 2**-10), (torch.bfloat16, 2**-7)],
)
def test_the_bound_is_rounding_s(dtype, expected):
    assert bound(nn.Linear(2, 2, dtype=dtype)) == expected


def test_a_wrong_operator_fails_the_capture(monkeypatch):
    monkeypatch.setattr(faithfulness, "_applied", lambda operator, values: 1.1 * operator.dense() @ values)
    iterator = capture(attention_model("llama"), token_ids())
    with pytest.raises(ModelError, match=r"Mixer model\.layers\.0\.self_attn: the captured operator .* differs"):
        next(iterator)


def test_what_was_found_is_kept_with_the_operator(monkeypatch):
    monkeypatch.setattr(faithfulness, "_applied", lambda operator, values: 1.0001 * operator.dense() @ values)
    (item,) = capture(attention_model("llama"), token_ids(), 0)
    assert item.faithfulness == pytest.approx(1e-4, rel=0.01)


def test_a_mixer_that_changes_from_call_to_call_fails_the_capture():
    class Drifting(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.attention = nn.Embedding(64, 8), nn.ModuleList([Attention()])

        def forward(self, ids):
            return self.attention[0](self.embedding(ids))

    class Attention(nn.Module):
        calls = 0

        def forward(self, hidden):
            Attention.calls += 1
            split = (hidden * Attention.calls).unflatten(-1, (2, 4)).transpose(1, 2)
            return nn.functional.scaled_dot_product_attention(split, split, split, is_causal=True)

    iterator = capture(Drifting(), token_ids())
    with pytest.raises(ModelError, match=r"Mixer attention\.0: its output when called again .* differs"):
        next(iterator)


def test_logits_are_compared_with_and_without_observation():
    assert 0 <= logits_difference(attention_model("gpt2"), token_ids()) < 1e-5
    assert logits_difference(nn.Sequential(nn.Embedding(64, 4)), token_ids()) == 0

    class Pair(nn.Module):
        def __init__(self, *answers):
            super().__init__()
            self.answers, self.calls = answers, 0

        def forward(self, ids):
            self.calls += 1
            return self.answers[self.calls - 1], "attention maps"

    ones = torch.ones(2, 3)
    assert logits_difference(Pair(ones * 2, ones * 3), token_ids()) == 0.5

    class Nothing(nn.Module):
        def forward(self, ids):
            return ()

    assert logits_difference(Nothing(), token_ids()) is None
    assert logits_difference(Pair("no", "tensor"), token_ids()) is None
