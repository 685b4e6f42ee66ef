"""The part of a layer that a name says it mixes, and modules that mix inside of others."""

from functools import partial

import pytest
import torch
from adapters.test_causes import codes
from oracles.attention_models import attention_model, token_ids
from oracles.own_layers import HEADS, LENGTH, TEXT, WIDTH, Own, heads, merged, model_of, shifted
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize.codes import Code, Note
from statesize.errors import InputError, ModelError


def products(own, hidden, value):
    """Either factor could be what T acts on."""
    return (own.key(hidden) * value).cumsum(1)


def test_the_part_that_is_named_is_what_t_acts_on():
    model, own_ones = model_of(products), torch.ones(LENGTH, LENGTH, dtype=torch.float64).tril()
    (found,) = ss.capture(model, TEXT)
    (by_pattern,) = ss.capture(model, TEXT, mixes={"[1]": "key"})
    assert ss.profile(model, TEXT, settings=ss.Settings(mixes={"1": "key"})).mixer("1").sizes["channel"] == WIDTH
    model[1].mixes = "value"
    (by_value,) = ss.capture(model, TEXT)
    hidden = model[0](TEXT)
    key, value = (part(hidden).mT[:, :, None] for part in (model[1].key, model[1].value))
    # Of two streams as wide the one that is computed first counts as values.
    for item, factor in ((found, key), (by_value, key), (by_pattern, value)):
        torch.testing.assert_close(item.operator.dense(), own_ones * factor, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("mixed", "error", "named"),
    [
        (products, InputError, {"1": "values"}),
        (products, InputError, {"2": "value"}),
        (products, InputError, {"1": 3}),
        (products, InputError, "1"),
        (lambda own, hidden, value: value.cummax(1)[0], ModelError, {"1": "value"}),
    ],
)
def test_a_named_part_must_be_there_and_be_mixed_linearly(mixed, error, named):
    with pytest.raises(error):
        ss.profile(model_of(mixed), TEXT, settings=ss.Settings(mixes=named))


def by_torch(own, hidden):
    mask = torch.ones(2 * [hidden.shape[1]], dtype=torch.bool).triu(1)
    return own.inner(hidden, hidden, hidden, attn_mask=mask, need_weights=False)[0]


class Attending(nn.Module):
    """A sum of attention, of queries, keys and values whose positions are the third dimension."""

    def forward(self, query, key, value):
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True).cumsum(2)


def of_heads(own, hidden, value):
    return merged(own.inner(heads(own.query(hidden)), heads(own.key(hidden)), heads(value)))


ATTENTION = partial(nn.MultiheadAttention, WIDTH, HEADS, batch_first=True)
BEFORE = dict.fromkeys(("1", "Sequential"), Code.BEFORE_PARTS)
INSIDE = [
    # A module inside, how its layer calls it, the names that are measured with the codes of each, and of what is not.
    (lambda: Own(Own.scan), lambda own, h, v: own.fused(h, v) + own.inner(h), {"1": {Code.PART}, "1.inner": set()}, {}),
    (ATTENTION, lambda own, h, v: by_torch(own, shifted(h)), {"1.inner": set()}, BEFORE),
    (ATTENTION, lambda own, h, v: shifted(by_torch(own, h)), {"1": {Code.MIXED_BEFORE}, "1.inner": set()}, {}),
    (Attending, of_heads, {"1.inner": set()}, {}),
]


@pytest.mark.parametrize(("make", "mixed", "measured", "skipped"), INSIDE)
def test_modules_that_mix_inside_of_others_have_rows_and_are_named(make, mixed, measured, skipped):
    capture = ss.capture(model_of(mixed, make), TEXT)
    found = {item.name: codes(item) - {Code.COUNTED, Code.UNKNOWN_SIZE} for item in capture}
    assert found == measured
    assert {name: note.code for name, note in capture.skipped.items()} == skipped


@pytest.mark.parametrize("mixed", [lambda own, h, v: shifted(own.output(own.attend(h, v))), Own.attend])
def test_a_profile_says_that_a_layer_is_measured_in_part(mixed):
    profile, in_part = ss.profile(model_of(mixed), TEXT), mixed is not Own.attend
    assert ("in part" in profile.summary()["limits"][0]) == ("in part" in str(profile)) == in_part


def test_a_forward_of_ones_own_in_a_class_of_a_library_is_no_longer_what_its_class_is_known_as():
    llama = attention_model("llama")
    part = llama.model.layers[0].self_attn
    usual = part.forward

    def patched(*args, **kwargs):
        output, maps = usual(*args, **kwargs)
        return output.cumsum(1), maps

    part.forward = patched
    first, second = ss.capture(llama, token_ids())
    # Its projection mixes channels before the sum.
    assert Code.PART in codes(first)
    assert (second.kind, second.notes) == ("attention", ())


@pytest.mark.parametrize(("share", "ahead"), [(0, False), (1e-6, False), (1e-2, True)])
def test_code_that_knows_no_float64_is_measured_in_float32_where_rounding_is_no_later_position(share, ahead):
    def single(own, hidden, value):
        if hidden.dtype is not torch.float32:
            raise TypeError("float32 only")
        return value.cumsum(1) + share * value.flip(1).cumsum(1).flip(1)

    model = model_of(single).float()
    if ahead:
        with pytest.raises(ModelError) as refused:
            next(ss.capture(model, TEXT))
        assert Note.of(refused.value).code is Code.LOOKS_AHEAD
        return
    (item,) = ss.capture(model, TEXT)
    assert Code.ROUNDED in codes(item)
    expected = torch.ones(LENGTH, LENGTH).tril()
    torch.testing.assert_close(item.operator.dense()[0, 0].float(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("texts", [1, 3])
def test_two_positions_show_t_as_three_do(texts):
    model = model_of(lambda own, hidden, value: (0.5 * value).cumsum(1))
    kinds = [next(ss.capture(model, torch.randint(50, (texts, length)))).kind for length in (2, 3)]
    assert kinds == ["Own", "Own"]
