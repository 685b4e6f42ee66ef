"""Faithfulness: what differs from the model is found, named and refused."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from torch import nn

import statesize as ss
from statesize import capture
from statesize.adapters.check import agreement, check_faithful, check_operator, unfaithfulness
from statesize.adapters.kernels import attention
from statesize.adapters.kernels.plain_attention import PlainAttention
from statesize.adapters.models.precision import BOUNDS, allowed, relative_difference, stored_dtype
from statesize.adapters.observation import Observation
from statesize.codes import Code, Note
from statesize.errors import InputError, ModelError
from statesize.operators import Dense


def observation(mixed, scale=1.0, **changes):
    matrix = torch.ones(1, 6, 4, 4, dtype=torch.float64).tril() * scale
    values = torch.ones(1, 6, 4, 2, dtype=torch.float64)
    one = Observation("mixer", "attention", lambda units: Dense(matrix[:, units]), values, mixed)
    return replace(one, **changes)


def refused(call, code=Code.DIFFERS):
    with pytest.raises(ModelError) as error:
        call()
    assert Note.of(error.value).code is code
    return str(error.value)


def of(one):
    return unfaithfulness(one, one.values, one.mixed)


def cumulated():
    return torch.arange(1.0, 5.0, dtype=torch.float64)[None, None, :, None].expand(1, 6, 4, 2).clone()


def off_in_unit_3():
    """Cumulated values, one of which is off by a hundredth of the largest."""
    mixed = cumulated()
    mixed[0, 3, 2, 1] += 0.04
    return mixed


def weighted(small):
    """What a unit of a small weight among others of 1 passes on."""
    weights = torch.ones(1, 6, 1, 1, dtype=torch.float64)
    weights[:, 3] = small
    return off_in_unit_3() * weights, lambda applied, units: applied * weights[:, units]


def test_differences_are_relative_to_the_largest_value_and_small_units_are_compared_by_themselves():
    assert of(observation(cumulated())) == 0
    assert of(observation(cumulated(), 1.01)) == pytest.approx(0.01)
    assert of(observation(off_in_unit_3())) == pytest.approx(0.01)
    mixed, passed_on = weighted(1e-4)
    small = observation(mixed, passed_on=passed_on)
    assert unfaithfulness(small, small.values, mixed, 1e-6) == pytest.approx(0.01)
    assert of(small) == pytest.approx(1e-6)


def test_what_is_rounding_in_double_precision():
    assert check_operator(observation(cumulated() / (1 + 9e-10))) == (pytest.approx(9e-10, rel=1e-3), ())
    assert check_operator(observation(cumulated(), difference=1e-9)) == (1e-9, ())
    refused(lambda: check_operator(observation(cumulated() / (1 + 1.1e-9))))
    # A unit of a ten-millionth of the others is compared with a millionth of the largest: off by a thousandth of that.
    mixed, passed_on = weighted(1e-7)
    assert "by 1.0e-03 of" in refused(lambda: check_operator(observation(mixed, passed_on=passed_on)))


def test_what_is_not_finite_names_mixer_sequence_unit_and_position():
    mixed = cumulated()
    mixed[0, 5, 2, 1] = torch.nan
    with pytest.raises(InputError, match=r"Mixer mixer, sequence 0, unit 5: .* first at position 2"):
        check_operator(observation(mixed))
    assert math.isnan(of(observation(mixed)))


def test_a_probe_takes_the_place_of_values_that_cannot_tell():
    """Values that are all the same fit any T whose rows have the same sums."""
    other = torch.full((1, 6, 4, 4), 0.0, dtype=torch.float64)
    other[..., 0] = torch.arange(1.0, 5.0)
    wrong = replace(observation(cumulated()), operator=lambda units: Dense(other[:, units]))
    assert check_operator(wrong) == (0, ())
    values = torch.randn(1, 6, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    refused(lambda: check_operator(replace(wrong, probed=lambda: (values, values.cumsum(2)))))
    assert check_operator(replace(observation(cumulated()), probed=lambda: (values, values.cumsum(2))))[0] < 1e-15


def rounded(by, exact):
    """A kernel that returns y (1 + by), and whose more exact form returns y times a factor."""
    return observation(cumulated() * (1 + by), exact=lambda: cumulated() * exact)


def test_what_a_kernel_rounds_is_measured_and_told():
    assert check_operator(observation(cumulated()), torch.float32) == (0.0, ())
    difference, (note,) = check_operator(rounded(5e-3, 1.0), torch.float32)
    assert difference == pytest.approx(5e-3, rel=0.01)
    assert str(note) == "Its kernel rounds: T is that of its step form, 5e-03 of the largest value off."


# T is neither what the kernel returns nor what its more exact form does, or the kernel rounds by more than a hundredth.
@pytest.mark.parametrize(("by", "exact"), [(5e-3, 1.005), (5e-3, 1.0001), (2e-2, 1.0)])
def test_other_differences_are_refused(by, exact):
    refused(lambda: check_operator(rounded(by, exact), torch.float32))


def test_relative_difference_of_zeros():
    zero, one = torch.zeros(2), torch.ones(2)
    assert [relative_difference(*pair) for pair in ((zero, zero), (one, zero), (zero, one))] == [0, float("inf"), 1]
    assert relative_difference(torch.zeros(0), torch.zeros(0)) == 0


@pytest.mark.parametrize("difference", [1.1e-3, float("nan"), float("inf")])
def test_beyond_the_bound_the_layer_is_named(difference):
    check_faithful("layers.3", 1e-3, "T u", 1e-3)
    assert "layers.3" in refused(lambda: check_faithful("layers.3", difference, "T u", 1e-3))


def test_the_bound_is_that_of_the_weights_dtype():
    bounds = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
    assert {dtype: BOUNDS[stored_dtype(nn.Linear(2, 2, dtype=dtype))] for dtype in bounds} == bounds


def test_large_scores_round_more():
    for difference in (1e-6, 1e-5):
        assert allowed(difference, torch.float32, lambda: pytest.fail("scores are not needed")) == 1e-5
    assert allowed(2e-5, torch.float32, lambda: 2**24 * 1e-4) == pytest.approx(1.1e-4)
    assert allowed(2e-5, torch.float32, float) == 1e-5
    assert allowed(1.0, torch.float32, lambda: 1e9) == 0.05


@pytest.mark.parametrize(("by", "limit"), [(9e-6, 1e-5), (1.1e-5, 1e-2), (9e-3, 1e-2)])
def test_a_mixer_s_own_arithmetic_may_round_by_a_hundredth(by, limit):
    output = torch.ones(2, 3)
    call = SimpleNamespace(name="mixer", output=output, dtype=torch.float32, autocast=False)
    found = agreement(call, output * (1 + by), float, lambda: output)
    assert (found.difference, found.allowed, found.notes != ()) == (pytest.approx(by, rel=0.01), limit, by > 1e-5)
    refused(lambda: agreement(call, output * 1.011, float, lambda: output), Code.ROUNDED)


@pytest.mark.parametrize("by", ["maps", "queries and keys"])
def test_a_wrong_operator_fails_the_capture(monkeypatch, by):
    """One percent is refused, however much the model's own output may be rounded."""
    made = Dense.of_causal
    monkeypatch.setattr(PlainAttention, "explained", lambda *_, **__: None if by == "maps" else 0.01)
    monkeypatch.setattr(Dense, "of_causal", staticmethod(lambda matrix, *rest: made(matrix * 1.01, *rest)))
    assert "0.self_attn" in refused(lambda: list(capture(attention_model("llama"), token_ids())))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_an_observation_that_alters_the_model_is_caught(monkeypatch, implementation):
    model, made = attention_model("llama", attn_implementation=implementation), attention._Registry.__init__
    assert all(item.faithfulness < 1e-5 for item in capture(model, token_ids()))

    def more(function):
        def attend(*args, **options):
            output, probabilities = function(*args, **options)
            return output * 1.0001, probabilities

        return attend

    def sabotaged(self, registry, change):
        made(self, registry, lambda name, function: change(name, more(function)))

    monkeypatch.setattr(attention._Registry, "__init__", sabotaged)
    refused(lambda: list(capture(model, token_ids())))
    # Inside of the altered run alone, nothing is seen.
    assert all(item.faithfulness < 1e-5 for item in capture(model, token_ids(), checks="none"))


def test_a_layer_of_a_library_that_knows_no_float64_is_compared_in_float32():
    def single(_, args):
        if args[0].dtype is torch.float64:
            raise TypeError("float32 only")

    model = attention_model("llama")
    with model.model.layers[0].self_attn.q_proj.register_forward_pre_hook(single):
        first, second = capture(model, token_ids())
    assert [note.code for note in first.notes] == [Code.ROUNDED]
    assert math.isnan(first.operator_difference)
    assert (first.faithfulness < 1e-5, second.notes) == (True, ())


def test_a_weight_that_is_changed_between_capture_and_check_is_caught():
    model = attention_model("llama")
    captured, alone = capture(model, token_ids()), capture(model, token_ids(), 1)
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight[0, 0] += 0.01
    refused(lambda: list(alone))
    # The others are measured, and the reason is kept.
    assert [item.name for item in captured] == ["model.layers.0.self_attn"]
    assert captured.skipped["model.layers.1.self_attn"].code is Code.DIFFERS


def test_a_profile_reads_every_sequence_with_hooks_and_the_first_without():
    model, runs = attention_model("llama"), []
    model.model.register_forward_hook(lambda *_: runs.append(1))
    found = ss.profile(model, token_ids(3), positions=2)
    assert len(runs) == (3 + 2) + 2 + 2
    assert {row["run_difference"] for row in found.summary_rows()} == {0}
