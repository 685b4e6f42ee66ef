"""Masks of pairs of tokens are handed to the model, and labels are not."""

import torch
from oracles.attention_models import attention_model, token_ids
from oracles.pretrained import TEXT, tiny_llama, tiny_tokenizer
from torch import nn

import statesize as ss

LENGTH = 21
CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


def test_the_plain_causal_mask_changes_nothing():
    model, ids = attention_model("llama"), token_ids(length=LENGTH)
    inputs = {"input_ids": ids, "attention_mask": CAUSAL.expand(2, 1, -1, -1)}
    for item, plain in zip(ss.capture(model, inputs), ss.capture(model, ids), strict=True):
        torch.testing.assert_close(item.operator.dense(), plain.operator.dense(), rtol=0, atol=0)


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
