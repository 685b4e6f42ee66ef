"""Attention by queries and keys: when they explain a layer, when not, and what that saves."""

import pytest
import torch
from oracles.attention_models import attention_model, token_ids

from statesize import capture
from statesize.adapters.kernels.plain_attention import PlainAttention, is_band
from statesize.operators import Dense, SoftmaxAttention

LENGTH = 9


def additive(seen):
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]


def test_bands():
    causal = torch.ones(LENGTH, LENGTH).tril().bool()
    window = causal.triu(-2)
    for mask, width in (
        (None, None),
        (causal[None, None], None),
        (additive(causal), None),
        (window[None, None].expand(2, 1, -1, -1), 3),
        (additive(window), 3),
    ):
        assert is_band(mask, LENGTH, width)
    biased, padded = additive(causal), causal.clone()
    biased[..., 4, 2], padded[:, 0] = -0.5, False
    for mask in (biased, padded[None, None], causal, object()):
        assert not is_band(mask, LENGTH, None)
    assert not is_band(causal[None, None], LENGTH, 3)
    assert not is_band(causal[None, None], LENGTH + 1, None)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_plain_attention_is_captured_by_queries_and_keys(family, implementation):
    items = list(capture(attention_model(family, attn_implementation=implementation), token_ids()))
    assert {type(item.operator) for item in items} == {SoftmaxAttention}
    assert all(item.map_bytes == 0 for item in items)
    windows = [item.operator.window for item in items]
    assert [item.state_size for item in items] == [window and window - 1 for window in windows]


@pytest.mark.parametrize(("family", "option"), [("gpt_oss", "sink"), ("gemma2", "soft_cap")])
def test_sink_and_cap_are_captured_as_the_model_s_maps(family, option, monkeypatch):
    changes = {"attn_logit_softcapping": 2.0} if option == "soft_cap" else {}
    model, ids = attention_model(family, attn_implementation="eager", **changes).double(), token_ids()
    if option == "sink":
        # The other experts know no float64.
        model.set_experts_implementation("eager")
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.sinks.normal_()
    found = [item.operator for item in capture(model, ids)]
    monkeypatch.setattr(PlainAttention, "explained", lambda *_, **__: None)
    maps = [item.operator for item in capture(model, ids)]
    for operator, by_maps in zip(found, maps, strict=True):
        assert isinstance(operator, SoftmaxAttention)
        assert isinstance(by_maps, Dense)
        assert [name for name in ("key_bias", "sink", "soft_cap") if getattr(operator, name) is not None] == [option]
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
