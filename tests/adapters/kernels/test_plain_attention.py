"""Attention by queries and keys: when they explain a layer, when not, and what that saves."""

import pytest
import torch
from oracles.attention_models import attention_model, token_ids

from statesize.adapters import calls, capture
from statesize.adapters.kernels.plain_attention import PlainAttention, is_band
from statesize.operators import Dense, SoftmaxAttention

LENGTH = 9


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
@pytest.mark.parametrize(
    ("family", "kind"),
    [("llama", SoftmaxAttention), ("gpt2", SoftmaxAttention), ("mistral", SoftmaxAttention), ("gpt_oss", Dense)],
)
def test_plain_attention_is_captured_by_queries_and_keys(family, kind, implementation):
    if family == "gpt_oss" and implementation == "sdpa":
        pytest.skip("it has no sinks there")
    items = list(capture(attention_model(family, attn_implementation=implementation), token_ids()))
    assert {type(item.operator) for item in items} == {kind}
    assert all((item.map_bytes == 0) == (kind is SoftmaxAttention) for item in items)


def test_the_operator_is_the_same_as_by_maps(monkeypatch):
    model, ids = attention_model("llama"), token_ids()
    plain = [item.operator.dense() for item in capture(model, ids)]
    together = [item.by_group().operator.operator.dense() for item in capture(model, ids)]
    monkeypatch.setattr(PlainAttention, "explains", lambda *_: False)
    for one, group, item in zip(plain, together, capture(model, ids), strict=True):
        assert isinstance(item.operator, Dense)
        torch.testing.assert_close(one, item.operator.dense(), rtol=0, atol=3e-7)
        torch.testing.assert_close(group, item.by_group().operator.operator.dense(), rtol=0, atol=3e-7)


def test_no_mixer_runs_again(monkeypatch):
    model, ids = attention_model("llama"), token_ids()
    ran = []
    model.model.layers[0].self_attn.register_forward_pre_hook(lambda *_: ran.append(1))
    captured = capture(model, ids)
    before = len(ran)
    kept = [item.operator.dense() for item in captured]
    assert len(ran) == before
    monkeypatch.setattr(calls, "HELD_BYTES", 0)
    again = [item.operator.dense() for item in capture(model, ids)]
    assert len(ran) == 2 * before + 1
    assert all(torch.equal(*pair) for pair in zip(kept, again, strict=True))


def test_queries_that_are_not_those_of_the_output_explain_nothing():
    g = torch.Generator().manual_seed(3)
    query, key, values = (torch.randn(1, heads, LENGTH, 4, generator=g) for heads in (4, 2, 2))
    plain = PlainAttention(query, key, 0.5, None)
    mixed = plain.operator(slice(None)).dense() @ values.repeat_interleave(2, 1)
    assert plain.explains(values, mixed)
    assert not plain.explains(values, mixed * 1.0001)
    assert not PlainAttention(query, key, 0.51, None).explains(values, mixed)
    assert not PlainAttention(query, key, 0.5, 3).explains(values, mixed)
    query[0, 0, 0, 0] = torch.nan
    assert not plain.explains(values, mixed)
