"""What modules of one's own say of themselves and keep, and modules that mix inside of others."""

import math

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.own_layers import HEADS, LENGTH, TEXT, WIDTH, Own, Short, delayed, model_of, shifted
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize.codes import Code, joined
from statesize.errors import InputError, ModelError
from statesize.results.summary import keeps_everything


def codes(item):
    return {note.code for note in item.notes}


def linear(own, hidden, value):
    return (own.query(hidden) @ own.key(hidden).mT).tril() @ value


def summed(own, hidden, value):
    return value.cumsum(1)


def convolved_attention(own, hidden, value):
    return linear(own, hidden, own.convolved(value))


def far(own, hidden, value):
    length = hidden.shape[1]
    return (
        torch.rand(LENGTH, LENGTH, generator=torch.Generator().manual_seed(0)).tril()[:length, :length].to(value)
        @ value
    )


def sparse(own, hidden, value):
    """Attention that gives some keys no weight, as if it dropped them."""
    scores = (value @ value.mT).masked_fill(torch.ones(2 * [hidden.shape[1]]).triu(1).bool(), -math.inf)
    return scores.masked_fill(scores < scores.topk(3, -1).values[..., -1:], -math.inf).softmax(-1) @ value


@pytest.mark.parametrize(
    ("mixed", "said", "size", "stored", "code"),
    [
        (summed, None, 1, 1, Code.COUNTED),
        (summed, 1, 1, 1, None),
        (summed, 4096, 4096, 4096, None),
        (linear, 8, 8, 8, None),
        (linear, 64, 64, 64, None),
        (convolved_attention, 2, None, None, Code.UNKNOWN_SIZE),  # T keeps more
        (far, None, None, None, Code.UNKNOWN_SIZE),
        (far, math.inf, None, LENGTH, None),
        (sparse, math.inf, None, LENGTH, None),  # its keys are its values, which are stored once
    ],
)
def test_a_state_size_is_what_a_class_says_if_t_keeps_no_more(mixed, said, size, stored, code):
    model = model_of(mixed).float()
    if said is not None:
        model[1].state_size = said
    (item,) = ss.capture(model, TEXT)
    assert (item.state_size, item.state_bytes) == (size, None if stored is None else stored * WIDTH * 4)
    assert codes(item) == ({code} if code else set())
    most = LENGTH if size is None else size
    kept = [4096] * LENGTH if said == 4096 else [64] * LENGTH if said == 64 else [min(i, most) for i in range(LENGTH)]
    assert item.operator.state_size().tolist() == kept


def test_a_state_size_that_is_too_large_makes_no_cache_of_a_short_text():
    model = model_of(summed)
    model[1].state_size, model[1].kind = 4096, "running sum"
    profile = ss.profile(model, TEXT)
    assert not keeps_everything(profile.mixer("1"))
    assert profile.mixer("1").attrs["kind"] == "running sum"


@pytest.mark.parametrize("wrong", ["8", 8.0, True, 0, -math.inf])
def test_a_state_size_is_a_whole_number(wrong):
    model = model_of(linear)
    model[1].state_size = wrong
    with pytest.raises(InputError, match=r"^state_size of 1 must be a whole number of at least 1, math\.inf if "):
        list(ss.capture(model, TEXT))


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_a_text_of_few_different_tokens_does_not_say_what_a_layer_can_hold(tokens):
    text = torch.randint(tokens, (1, 48), generator=torch.Generator().manual_seed(0))
    (item,) = ss.capture(model_of(linear), text)
    assert item.state_size == 8


@pytest.mark.parametrize(("second", "size"), [(3e-7, 2), (3e-10, None), (3e-14, 1)])
def test_a_second_number_counts_where_a_gap_tells_it_from_rounding(second, size):
    signs = torch.tensor([1.0, -1.0] * (LENGTH // 2), dtype=torch.float64)[:, None]

    def mixed(own, hidden, value):
        own_signs = signs[: hidden.shape[1]]
        return value.cumsum(1) + second * own_signs * (own_signs * value).cumsum(1)

    (found,) = ss.capture(model_of(mixed), TEXT)
    assert found.state_size == size


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
        (lambda own, hidden, value: value.cummax(1)[0], ModelError, {"1": "value"}),
    ],
)
def test_a_named_part_must_be_there_and_be_mixed_linearly(mixed, error, named):
    with pytest.raises(error, match="mixes"):
        list(ss.capture(model_of(mixed), TEXT, mixes=named))


@pytest.mark.parametrize("wrong", [{"1": 3}, "1"])
def test_parts_are_named_by_modules(wrong):
    with pytest.raises(InputError, match="mixes must be names of modules with the name of a part each, got "):
        ss.profile(model_of(products), TEXT, settings=ss.Settings(mixes=wrong))


class Activated(Short):
    def forward(self, hidden):
        return functional.silu(super().forward(hidden))


class Shifting(nn.Module):
    """Attention of torch, and the token before it added to what enters or leaves it."""

    def __init__(self, where):
        super().__init__()
        self.attention, self.where = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), where

    def forward(self, hidden):
        hidden = hidden + delayed(hidden) if self.where == "before" else hidden
        mask = torch.ones(2 * [hidden.shape[1]], dtype=torch.bool).triu(1)
        hidden = self.attention(hidden, hidden, hidden, attn_mask=mask, need_weights=False)[0]
        return hidden + delayed(hidden) if self.where == "behind" else hidden


class Attending(nn.Module):
    """Attention as a module of queries, keys and values, whose positions are the third dimension."""

    twice = False

    def forward(self, query, key, value):
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.cumsum(2) if self.twice else mixed


class AttendingTwice(Attending):
    twice = True


def around(make, mixed):
    """A layer of one's own around another module."""
    model = model_of(mixed)
    model[1].inner = make().double().requires_grad_(False)
    return model


def of_heads(own, hidden, value):
    parts = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (own.query(hidden), own.key(hidden), value))
    return own.inner(*parts).transpose(1, 2).flatten(2)


def inner(own, hidden, value):
    return own.inner(hidden)


BEFORE = dict.fromkeys(("1.inner", "1", "Sequential"), Code.BEFORE_PARTS)
INSIDE = [
    # Where a module stands, the names that are measured with the codes of each, and the codes of what is not.
    (Activated, lambda own, h, v: own.attend(own.inner(h), v), {"1": set(), "1.inner": set()}, {}),
    (Activated, lambda own, h, v: own.attend(h, own.inner(v)), {"1": {Code.MIXED_BEFORE}, "1.inner": set()}, {}),
    (lambda: Own(Own.scan), lambda own, h, v: own.fused(h, v) + own.inner(h), {"1": {Code.PART}, "1.inner": set()}, {}),
    (lambda: Own(Own.fused), lambda own, h, v: own.inner(h) + v.cumsum(1), {"1": {Code.PART}, "1.inner": set()}, {}),
    (lambda: Shifting("before"), inner, {"1.inner.attention": set()}, BEFORE),
    (lambda: Shifting("behind"), inner, {"1.inner": {Code.MIXED_BEFORE}, "1.inner.attention": set()}, {}),
    (Attending, of_heads, {"1.inner": set()}, {}),
    (AttendingTwice, of_heads, {"1.inner": set()}, {}),
]


@pytest.mark.parametrize(("make", "mixed", "measured", "skipped"), INSIDE)
def test_modules_that_mix_inside_of_others_have_rows_and_are_named(make, mixed, measured, skipped):
    capture = ss.capture(around(make, mixed), TEXT)
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

    assert [item.name for item in ss.capture(llama, token_ids())] == [f"model.layers.{n}.self_attn" for n in (0, 1)]
    part.forward = patched
    first, second = ss.capture(llama, token_ids())
    # Its projection mixes channels before the sum.
    assert Code.PART in codes(first)
    assert (second.kind, second.notes) == ("attention", ())


def test_code_that_does_not_run_in_float64_is_measured_in_float32_and_says_so():
    def single(own, hidden, value):
        if hidden.dtype is not torch.float32:
            raise TypeError("float32 only")
        return value.cumsum(1)

    (item,) = ss.capture(model_of(single).float(), TEXT)
    assert "Its code does not run in float64" in joined(item.notes)
    torch.testing.assert_close(
        item.operator.dense()[0, 0].float(), torch.ones(LENGTH, LENGTH).tril(), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(("share", "ahead"), [(1e-6, False), (1e-2, True)])
def test_in_float32_a_later_position_counts_beyond_rounding(share, ahead):
    def single(own, hidden, value):
        if hidden.dtype is not torch.float32:
            raise TypeError("float32 only")
        return value.cumsum(1) + share * value.flip(1).cumsum(1).flip(1)

    model = model_of(single).float()
    if ahead:
        with pytest.raises(ModelError, match="depends on positions from"):
            next(ss.capture(model, TEXT))
    else:
        assert next(ss.capture(model, TEXT)).operator.dense()[0, 0, 0, 1:].abs().max() == 0


@pytest.mark.parametrize("texts", [1, 2, 3])
def test_two_positions_show_t_as_three_do(texts):
    model = model_of(lambda own, hidden, value: (0.5 * value).cumsum(1))
    kinds = [next(ss.capture(model, torch.randint(50, (texts, length)))).kind for length in (2, 3)]
    assert kinds == ["Own", "Own"]


@pytest.mark.parametrize("pair", [(Own.attend, Own.attend), (Own.scan, products)])
def test_no_module_changes_the_numbers_of_another_of_its_class(pair):
    alone = [next(ss.capture(model_of(mixed, seed), TEXT)).operator.dense() for seed, mixed in enumerate(pair)]
    for number in (1, 0, 1):
        (item,) = ss.capture(model_of(pair[number], number), TEXT)
        assert torch.equal(item.operator.dense(), alone[number])
