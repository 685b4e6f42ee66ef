"""Attention from the registry: probabilities, windows, caches, against impulses through the model's own function."""

import importlib

import pytest
import torch
import transformers
from oracles.attention_models import FAMILIES, attention_model, token_ids
from torch import nn

from statesize import capture


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_s_layers_hold_what_their_windows_let_them_see(family):
    captured = capture(attention_model(family), token_ids())
    assert captured.run_difference == 0
    for item, window in zip(captured, FAMILIES[family][1], strict=True):
        assert item.kind == ("attention" if window is None else "sliding attention")
        assert item.faithfulness < 1e-5
        reach = 20 if window is None else window - 1
        assert item.operator.state_size().tolist() == [min(i, reach) for i in range(21)]


def rectified(scores):
    return (20 * scores).relu().tril()


def of_a_window(scores):
    at = torch.arange(scores.shape[-1])
    hidden = (at[:, None] < at) | (at[:, None] - at >= 5)
    return (scores.square() - 0.1 * at).masked_fill(hidden, -torch.inf).softmax(-1)


@pytest.mark.parametrize(("mapped", "gives_weights"), [(rectified, False), (of_a_window, True)])
def test_a_function_that_a_user_registers_says_its_t_by_impulses(mapped, gives_weights):
    def attend(module, query, key, value, attention_mask, scaling=None, **_):
        key, value = (part.repeat_interleave(2, 1) for part in (key, value))
        maps = mapped(query @ key.mT * scaling)
        seen.append(maps.detach())
        return (maps @ value).transpose(1, 2).contiguous(), maps if gives_weights else None

    seen = []
    transformers.AttentionInterface.register("of_the_user", attend)
    model, ids = attention_model("llama"), token_ids()
    model.set_attn_implementation("of_the_user")
    model(ids)
    expected = list(seen)
    for item, maps in zip(capture(model, ids), expected, strict=True):
        torch.testing.assert_close(item.operator.dense().float(), maps, rtol=0, atol=1e-5 * float(maps.max()))
        assert (item.groups, item.kind) == (2, "attention")
        assert int(item.operator.state_size()[-1]) == (4 if mapped is of_a_window else 20)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_flex_attention_is_measured_as_eager(family):
    model, ids = attention_model(family), token_ids()
    maps = []
    for implementation in ("eager", "flex_attention"):
        model.set_attn_implementation(implementation)
        maps.append([item.operator.dense() for item in capture(model, ids)])
    torch.testing.assert_close(maps[1], maps[0], rtol=0, atol=1e-6)


COMPILED_FLEX = None


class CompiledFlex(nn.Module):
    """It calls a compiled flex_attention by a name of its file."""

    def forward(self, hidden):
        values = hidden[:, None]
        return COMPILED_FLEX(values, values, values, score_mod=lambda s, b, h, i, j: s.where(i >= j, -torch.inf))[:, 0]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_compiled_flex_attention_is_measured_uncompiled(monkeypatch):
    flex = importlib.import_module("torch.nn.attention.flex_attention")  # here, as it takes seconds
    monkeypatch.setitem(globals(), "COMPILED_FLEX", torch.compile(flex.flex_attention))
    (item,) = capture(nn.Sequential(nn.Embedding(200, 8), CompiledFlex()), token_ids())
    assert (item.kind, item.notes) == ("attention", ())
    assert item.operator_difference < 1e-10


def test_heads_are_chosen_before_their_operators_are_made():
    (item,) = capture(attention_model("llama"), token_ids(), 0)
    assert (item.units, item.multiplicity, item.operator.batch_shape) == (4, 8, (2, 4))
    chosen = item.units_operator(torch.tensor([3, 1]))
    assert chosen.batch_shape == (2, 2)
    assert torch.equal(chosen.dense(), item.operator.dense()[:, [3, 1]])
    # A view is multiplied in another order of memory.
    some, expected = item.units_operator(slice(1, 3)).dense(), item.operator.dense()[:, 1:3]
    torch.testing.assert_close(some, expected, rtol=1e-14, atol=1e-15)


def test_a_window_longer_than_the_text_keeps_its_name():
    mixers = capture(attention_model("mistral", sliding_window=100), token_ids()).mixers
    assert {(mixer.kind, mixer.state_size) for mixer in mixers} == {("sliding attention", 99)}


@pytest.mark.parametrize("lengths", [(6, 6), (5, 7), (3, 4, 5)])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_texts_in_a_row_keep_what_their_later_tokens_read(family, lengths):
    """Whether they are equally long, or a window ends them too."""
    positions = torch.cat([torch.arange(length) for length in lengths])
    inputs = {"input_ids": token_ids(1, 12), "position_ids": positions[None]}
    item = next(capture(attention_model(family), inputs))
    window = item.state_size if "sliding" in item.kind else 12
    # The last token of a text is read by none behind it.
    kept = [0 if not position else min(position, window) for position in positions.tolist()]
    assert item.operator.state_size().tolist() == kept


@pytest.mark.parametrize("is_derived", [True, False])
def test_an_attention_layer_of_a_class_elsewhere_is_measured_or_traced(is_derived):
    """It is known by the file of its base class; of another one there is no eager attention."""
    model = attention_model("llama")
    expected = [item.operator.dense() for item in capture(model, token_ids())]
    attention = model.model.layers[1].self_attn
    base = type(attention) if is_derived else nn.Module
    attention.__class__ = type("MyAttention", (base,), {"forward": type(attention).forward, "__module__": __name__})
    atol = 0 if is_derived else 1e-6
    for item, matrix in zip(capture(model, token_ids()), expected, strict=True):
        torch.testing.assert_close(item.operator.dense(), matrix, rtol=0, atol=atol, check_dtype=False)
