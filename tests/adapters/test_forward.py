"""What a model is given and how it is run, and what is refused in one line."""

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.pretrained import TEXT, tiny_llama, tiny_tokenizer
from torch import nn
from transformers import DynamicCache

import statesize as ss
from statesize import capture
from statesize.adapters.forward import Forward
from statesize.errors import InputError


@pytest.fixture
def model():
    return attention_model("llama", pad_token_id=63)


def refused(error, pattern, model, inputs, call=capture):
    with pytest.raises(error, match=pattern) as caught:
        call(model, inputs)
    assert "\n" not in str(caught.value)


PADDED = torch.tensor([[63, 63, 3, 4], [5, 6, 7, 8]])  # 63 is the padding token


@pytest.mark.parametrize(
    ("inputs", "pattern"),
    [
        (PADDED, r"several padding tokens \(id 63\); give texts"),
        (PADDED.flip(1), r"several padding tokens \(id 63\); give texts"),
        ({"input_ids": PADDED.clamp(max=62), "attention_mask": (PADDED < 63).long()}, "marks padding; give"),
        ({"input_ids": token_ids(), "past_key_values": DynamicCache()}, "past_key_values must be left out, got one"),
        (torch.ones(1, 1, dtype=torch.int64), "must have at least 2 tokens, .*, got 1"),
        (torch.ones(1, 0, dtype=torch.int64), "must have at least 2 tokens, .*, got 0"),
        (torch.ones(5, dtype=torch.int64), r"shape \(sequences, positions\), got \(5,\)"),
        ([1, 2, 3], "got list"),
        ({"attention_mask": torch.ones(1, 3)}, "got NoneType"),
        (torch.tensor([[5, 6, 400]]), "input_ids must be from 0 to 63, the tokens that the model knows, got 400"),
        (torch.tensor([[5, -6, 4]]), "input_ids must be from 0 to 63, .* got -6"),
        (torch.ones(1, 8), r"must be integers of dtype torch.int64, got dtype torch.float32. Give ids.long\(\)"),
        (torch.ones(1, 8).bool(), "must be integers of dtype torch.int64, got dtype torch.bool"),
    ],
)
def test_what_is_no_text_is_refused(model, inputs, pattern):
    refused(InputError, pattern, model, inputs)


class Own(nn.Module):
    """A model of one's own that knows 40 tokens and 12 positions."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(40, 8), nn.Embedding(12, 8)

    def forward(self, ids):
        hidden = (self.tokens(ids) + self.positions(torch.arange(ids.shape[1])))[:, None]
        return nn.functional.scaled_dot_product_attention(hidden, hidden, hidden, is_causal=True)[:, 0]


OWN = Own()
HIDDEN = r"^inputs must be hidden states of shape \(sequences, positions, channels\) for .* got integers of shape"


@pytest.mark.parametrize(
    ("model", "inputs", "pattern"),
    [
        (OWN, torch.ones(1, 8), r"inputs must be integers of dtype torch.int64, got dtype torch.float32. Give ids.l"),
        (OWN, torch.tensor([[3, 40, 5]]), "inputs must be from 0 to 39, the tokens that the model knows, got 40. Make"),
        (OWN, torch.ones(1, 13).long(), "inputs must have at most 12 tokens, .* positions, got 13. Give shorter"),
        (nn.Sequential(nn.Linear(8, 8), nn.ReLU()), torch.arange(24)[None], HIDDEN),
        (nn.GRU(8, 4, batch_first=True), torch.arange(24)[None], HIDDEN),
    ],
)
def test_inputs_that_a_model_of_ones_own_cannot_take(model, inputs, pattern):
    for call in (ss.profile, capture, ss.network_ess):
        refused(InputError, pattern, model, inputs, call)


def test_an_error_of_a_models_own_stays_its_own():
    model = Own()
    assert capture(model, torch.ones(1, 12, dtype=torch.int32)).length == 12
    model.tokens.forward = lambda ids: nn.Embedding(2, 8)(ids[:, :1] + 2).expand(-1, ids.shape[1], -1)
    refused(IndexError, "index out of range in self", model, torch.ones(1, 2, dtype=torch.long))


def test_a_single_mark_at_the_border_is_no_padding(model):
    ids = token_ids()
    ids[:, 0] = ids[:, -1] = 63
    assert len(capture(model, ids).mixers) == 2


def test_a_model_runs_without_cache_gradients_dropout_or_autocast(model):
    model.train()
    seen = {}

    def look(_, args, kwargs, output):
        seen.update(kwargs, training=model.training, gradients=torch.is_grad_enabled(), dtype=output.logits.dtype)

    with model.register_forward_hook(look, with_kwargs=True), torch.autocast("cpu", torch.bfloat16):
        assert Forward.of(model, token_ids()).hidden().shape == (2, 21, 64)
    assert seen | dict.fromkeys(("use_cache", "training", "gradients"), False) | {"dtype": torch.float32} == seen


def test_what_may_do_something_around_a_backbone_is_run_itself(model):
    def backbone_of(model, inputs):
        return Forward.of(model, inputs).backbone

    ids = token_ids()
    assert backbone_of(model, ids) is backbone_of(model, {"input_ids": ids}) is model.model
    assert Forward.of(model, ids).hidden().shape == (2, 21, 32)  # before the output layer
    handle = model.register_forward_hook(lambda *_: None)
    assert backbone_of(model, ids) is model
    handle.remove()
    assert backbone_of(model, {"input_ids": ids, "logits_to_keep": 1}) is model
    assert backbone_of(wrapper := nn.Sequential(model), ids) is wrapper
    model.__class__ = type("Derived", (type(model),), {"__module__": __name__})
    assert backbone_of(model, ids) is model


def test_the_plain_causal_mask_changes_nothing(model):
    ids, causal = token_ids(length=21), torch.ones(21, 21, dtype=torch.bool).tril()
    inputs = {"input_ids": ids, "attention_mask": causal.expand(2, 1, -1, -1)}
    for item, plain in zip(capture(model, inputs), capture(model, ids), strict=True):
        torch.testing.assert_close(item.operator.dense(), plain.operator.dense(), rtol=0, atol=0)


def test_what_a_tokenizer_returns_is_measured_and_labels_change_nothing():
    model, inputs = tiny_llama(), tiny_tokenizer()(TEXT, return_tensors="pt")
    plain = list(capture(model, inputs["input_ids"]))
    seen = []
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(set(kwargs)), with_kwargs=True)
    for given in (inputs, inputs | {"labels": inputs["input_ids"]}, {**inputs, "labels": torch.full((1, 3), -100)}):
        for item, expected in zip(capture(model, given), plain, strict=True):
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
    assert len(capture(Model(), {"input_ids": ids, "labels": ids}).mixers) == 2
