"""What a model's own arithmetic rounds, in autocast too, is measured and told, or refused where it decides all."""

import pytest
import torch
from oracles.own_layers import TEXT, WIDTH, Own, heads, merged, model_of
from torch import nn
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

import statesize as ss
from statesize.codes import Code, Note
from statesize.errors import ModelError


def large_scores(deviation):
    """A Qwen2 whose biases make large scores, as those of Qwen2.5's first layer."""
    shape = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**shape, num_attention_heads=4, num_key_value_heads=2)).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.bias.normal_(0, deviation)
            layer.self_attn.k_proj.bias.normal_(0, deviation)
    return model


@pytest.mark.parametrize("deviation", [1.0, 30.0, 60.0])
def test_large_scores_round_and_are_measured(deviation):
    ids = torch.randint(0, 100, (1, 256), generator=torch.Generator().manual_seed(0))
    captured = ss.capture(large_scores(deviation), ids)
    items = list(captured)
    assert (len(items), captured.skipped) == (2, {})
    for item in items:
        assert item.operator_difference < 1e-9
        assert item.faithfulness <= item.agreement.allowed
    # The bound is that of the scores, and tight where they are large.
    if deviation > 1:
        first = items[0]
        assert 1e-5 < first.faithfulness
        assert first.agreement.allowed < 10 * first.faithfulness


def close_to_one(own, hidden, value):
    parts = heads(1e-6 * hidden + 1)
    return 1e6 * (merged(F.scaled_dot_product_attention(parts, parts, parts, is_causal=True)) - 1)


def test_what_float32_destroys_is_refused_by_its_cause():
    with pytest.raises(ModelError) as refused:
        list(ss.capture(model_of(close_to_one).float(), TEXT))
    assert Note.of(refused.value).code is Code.ROUNDED


NORMS = {
    torch.bfloat16: lambda eps, hidden: nn.RMSNorm(WIDTH, eps=eps, dtype=hidden.dtype)(hidden),
    torch.float32: lambda eps, hidden: F.rms_norm(hidden, (WIDTH,), eps=eps),
    torch.float64: lambda eps, hidden: torch.rms_norm(hidden, (WIDTH,), None, eps),
}


@pytest.mark.parametrize("dtype", NORMS)
def test_the_eps_that_a_norm_takes_from_the_dtype_is_that_of_the_model(dtype):
    eps = torch.finfo(torch.float64 if dtype is torch.float64 else torch.float32).eps
    (by_default,), (named,) = (
        ss.capture(model_of(lambda own, h, v, eps=eps: NORMS[dtype](eps, 1e-4 * v.cumsum(1))).to(dtype), TEXT)
        for eps in (None, eps)
    )
    assert by_default.agreement.difference == named.agreement.difference <= named.agreement.allowed
    torch.testing.assert_close(by_default.operator.dense(), named.operator.dense(), rtol=0, atol=0)


def beside_its_input(own, hidden, value):
    return own.attend(hidden, value) + hidden


@pytest.mark.parametrize(("mixed", "dtype"), [(beside_its_input, torch.bfloat16), (Own.scan, torch.float16)])
def test_autocast_around_a_mixer(mixed, dtype):
    model, around = model_of(mixed).float(), nn.Sequential(model_of(mixed).float())
    around.forward = torch.autocast("cpu", dtype)(around.forward)
    (found,), (expected,) = ss.capture(around, TEXT), ss.capture(model, TEXT)
    assert 1e-5 < found.faithfulness <= found.agreement.allowed <= 1e-2
    assert found.notes == expected.notes
    # What enters the mixer is the same, and T is that of float64.
    torch.testing.assert_close(found.operator.dense(), expected.operator.dense(), rtol=1e-4, atol=1e-6)


class Inside(Own):
    """A mixer whose own forward enters autocast."""

    def forward(self, hidden):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(hidden)


@pytest.mark.parametrize("mixed", [beside_its_input, Own.scan])
def test_autocast_inside_a_mixer(mixed):
    (found,) = ss.capture(model_of(mixed, layer=Inside).float(), TEXT)
    assert 1e-5 < found.faithfulness <= found.agreement.allowed <= 1e-2
    assert [note.code for note in found.agreement.notes] == [Code.ROUNDED]
