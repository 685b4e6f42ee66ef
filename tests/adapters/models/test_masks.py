"""Masks of four dimensions: the plain causal one is taken in every form, and no other one is."""

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.pretrained import TEXT, tiny_llama, tiny_tokenizer
from torch import nn

import statesize as ss
from statesize.errors import InputError

LENGTH = 21
CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
LEAST = torch.finfo(torch.float32).min


def added(seen, hidden=-torch.inf, dtype=torch.float32):
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, hidden)


FORMS = {
    "boolean": CAUSAL,
    "infinite": added(CAUSAL),
    "least": added(CAUSAL, LEAST),
    "half precision": added(CAUSAL, torch.finfo(torch.float16).min, torch.float16),
    "older models": added(CAUSAL, -1e4),
}


@pytest.mark.few(5)
@pytest.mark.parametrize("family", ["llama", "falcon"])
@pytest.mark.parametrize("form", FORMS)
def test_the_plain_causal_mask_changes_nothing(family, form):
    model, ids = attention_model(family), token_ids(length=LENGTH)
    mask = FORMS[form].expand(2, 1, -1, -1)
    inputs = {"input_ids": ids, "attention_mask": mask}
    for item, plain in zip(ss.capture(model, inputs), ss.capture(model, ids), strict=True):
        torch.testing.assert_close(item.operator.dense(), plain.operator.dense(), rtol=0, atol=0)
        assert torch.equal(item.operator.state_size(), plain.operator.state_size())
    assert ss.capture(model, inputs).run_difference == 0
    assert mask.dtype == FORMS[form].dtype
    assert inputs["attention_mask"] is mask


def test_a_profile_with_the_plain_causal_mask_is_that_without():
    model, ids = attention_model("llama"), token_ids(length=LENGTH)
    found = ss.profile(model, {"input_ids": ids, "attention_mask": FORMS["boolean"].expand(2, 1, -1, -1)})
    assert found.summary().equals(ss.profile(model, ids).summary())


def test_a_model_of_ones_own_is_given_the_mask_as_it_is():
    seen = []

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.attention = nn.Embedding(64, 8), nn.Identity()

        def forward(self, input_ids, attention_mask):
            seen.append(attention_mask)
            hidden = self.embedding(input_ids)[:, None]
            return nn.functional.scaled_dot_product_attention(hidden, hidden, hidden, attn_mask=attention_mask)

    assert len(ss.capture(Model(), {"input_ids": token_ids(), "attention_mask": CAUSAL[None, None]}).mixers) == 1
    assert seen[0].dtype == torch.bool


def changed(query, key):
    mask = CAUSAL.clone()
    mask[query, key] = not mask[query, key]
    return mask


@pytest.mark.parametrize(
    ("mask", "pattern"),
    [
        (changed(3, 7), r"position 3 sees the later position 7\. Leave it out"),
        (added(changed(3, 7)), r"position 3 sees the later position 7\. Leave it out"),
        (changed(7, 3), r"position 7 does not see position 3: padding, a window or several texts in one"),
        (added(changed(7, 3), -1e4), r"position 7 does not see position 3: padding"),
        (CAUSAL.long(), r"boolean or added to scores, got torch\.int64"),
        (CAUSAL[:5, :5], r"got shape \(1, 1, 5, 5\) for 21 positions"),
        (added(CAUSAL, -3.0), r"got numbers other than 0 and below -10000"),
        (added(CAUSAL, torch.nan), r"got numbers other than 0 and below -10000"),
    ],
)
def test_other_masks_of_four_dimensions_are_refused(mask, pattern):
    model, ids = attention_model("llama"), token_ids(length=LENGTH)
    # The second sequence's is wrong; the first one's is right where both have the same shape and dtype.
    right = CAUSAL if mask.dtype == torch.bool else added(CAUSAL)
    masks = torch.stack([right, mask])[:, None] if mask.shape == right.shape and mask.dtype == right.dtype else mask
    masks = masks if masks.ndim == 4 else masks[None, None]
    for call in (ss.capture, ss.profile):
        with pytest.raises(InputError, match=rf"attention_mask must be the plain causal .*{pattern}"):
            call(model, {"input_ids": ids, "attention_mask": masks})


def test_a_mask_that_would_take_the_place_of_windows_is_refused():
    ids, inputs = token_ids(length=LENGTH), {"attention_mask": CAUSAL[None, None]}
    with pytest.raises(InputError, match=r"must have 2 dimensions where the model has sliding_window=7, got 4"):
        ss.capture(attention_model("mistral"), inputs | {"input_ids": ids})
    wide = attention_model("mistral", sliding_window=LENGTH)
    assert len(ss.capture(wide, inputs | {"input_ids": ids}).mixers) == 2


def test_a_mask_that_is_no_tensor_is_refused():
    with pytest.raises(InputError, match=r'attention_mask must be a tensor, got list. .* return_tensors="pt"'):
        ss.capture(attention_model("llama"), {"input_ids": token_ids(), "attention_mask": [[1] * LENGTH] * 2})


def test_what_a_tokenizer_returns_is_measured_and_labels_change_nothing():
    model, inputs = tiny_llama(), tiny_tokenizer()(TEXT, return_tensors="pt")
    plain = list(ss.capture(model, inputs["input_ids"]))
    seen = []
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(set(kwargs)), with_kwargs=True)
    for given in (inputs, inputs | {"labels": inputs["input_ids"]}, {**inputs, "labels": torch.full((1, 3), -100)}):
        for item, expected in zip(ss.capture(model, given), plain, strict=True):
            torch.testing.assert_close(item.operator.dense(), expected.operator.dense(), rtol=0, atol=0)
    assert seen
    assert not any("labels" in names for names in seen)


def test_labels_are_handed_to_a_model_that_needs_them():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = attention_model("llama")

        def forward(self, input_ids, labels):
            return nn.functional.cross_entropy(self.model(input_ids, use_cache=False).logits.mT, labels)

    ids = token_ids()
    assert len(ss.capture(Model(), {"input_ids": ids, "labels": ids}).mixers) == 2
