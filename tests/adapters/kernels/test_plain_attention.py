"""Attention by queries and keys: when they explain a layer, when not, and what that saves."""

import pytest
import torch
from oracles.attention_models import attention_model, token_ids

from statesize import capture
from statesize.adapters.kernels.plain_attention import PlainAttention, is_band
from statesize.operators import Dense, SoftmaxAttention

LENGTH = 9


def without_queries_and_keys(monkeypatch):
    monkeypatch.setattr(PlainAttention, "explained", lambda *_, **__: None)


def additive(seen):
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]


def test_bands():
    causal = torch.ones(LENGTH, LENGTH).tril().bool()
    window = causal.triu(-2)
    assert is_band(None, LENGTH, None)
    assert is_band(causal[None, None], LENGTH, None)
    assert is_band(additive(causal), LENGTH, None)
    assert is_band(window[None, None].expand(2, 1, -1, -1), LENGTH, 3)
    assert is_band(additive(window), LENGTH, 3)


def test_what_is_no_band():
    causal = torch.ones(LENGTH, LENGTH).tril().bool()
    biased, padded = additive(causal), causal.clone()
    biased[..., 4, 2] = -0.5
    padded[:, 0] = False
    assert not is_band(biased, LENGTH, None)
    assert not is_band(padded[None, None], LENGTH, None)
    assert not is_band(causal[None, None], LENGTH, 3)
    assert not is_band(causal[None, None], LENGTH + 1, None)
    assert not is_band(causal, LENGTH, None)
    assert not is_band(object(), LENGTH, None)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_plain_attention_is_captured_by_queries_and_keys(family, implementation):
    items = list(capture(attention_model(family, attn_implementation=implementation), token_ids()))
    assert {type(item.operator) for item in items} == {SoftmaxAttention}
    assert all(item.map_bytes == 0 for item in items)
    windows = [item.operator.window for item in items]
    assert [item.state_size for item in items] == [window and window - 1 for window in windows]


# What each family adds to the scores, as options of the operator.
ADDED = {
    ("gpt_oss", "eager"): ("sink",),
    ("gemma2", "eager"): ("soft_cap",),
}


def adding_model(family, implementation):
    changes = {"gemma2": {"attn_logit_softcapping": 2.0}}.get(family, {})
    model = attention_model(family, attn_implementation=implementation, **changes).double()
    if family == "gpt_oss":
        # The other experts know no float64.
        model.set_experts_implementation("eager")
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.sinks.normal_()
    return model


@pytest.mark.parametrize(("family", "implementation"), ADDED)
def test_bias_sink_and_cap_are_captured_as_the_model_s_maps(family, implementation, monkeypatch):
    model, ids = adding_model(family, implementation), token_ids()
    found = [item.operator for item in capture(model, ids)]
    for operator in found:
        assert isinstance(operator, SoftmaxAttention)
        options = ("key_bias", "sink", "soft_cap")
        assert tuple(name for name in options if getattr(operator, name) is not None) == ADDED[family, implementation]
    without_queries_and_keys(monkeypatch)
    maps = [item.operator for item in capture(model, ids)]
    for operator, by_maps in zip(found, maps, strict=True):
        assert isinstance(by_maps, Dense)
        # Several of these models normalise in float32.
        expected = by_maps.dense().double()
        torch.testing.assert_close(operator.to(torch.float64).dense(), expected, rtol=0, atol=1e-6)
        assert torch.equal(operator.state_size(), by_maps.state_size())


def applied(plain, values):
    return plain.attention.dense() @ values.repeat_interleave(2, 1)


def test_queries_that_are_not_those_of_the_output_explain_nothing():
    g = torch.Generator().manual_seed(3)
    query, key, values = (torch.randn(1, heads, LENGTH, 4, generator=g, dtype=torch.float64) for heads in (4, 2, 2))
    plain = PlainAttention.of(query, key, 0.5, None)
    mixed = applied(plain, values)
    assert plain.explained(values, mixed, exact=True) is not None
    assert plain.explained(values, mixed * 1.00000001, exact=True) is None
    assert PlainAttention.of(query, key, 0.51, None).explained(values, mixed, exact=True) is None
    assert PlainAttention.of(query, key, 0.5, 3).explained(values, mixed, exact=True) is None
    sink = torch.randn(1, 4, generator=g, dtype=torch.float64)
    for changed in ({"sink": sink}, {"soft_cap": 1.0}):
        another = PlainAttention.of(query, key, 0.5, None, **changed)
        assert another.explained(values, mixed, exact=True) is None
        assert another.explained(values, applied(another, values), exact=True) is not None
    query[0, 0, 0, 0] = torch.nan
    assert PlainAttention.of(query, key, 0.5, None).explained(values, mixed, exact=True) is None
