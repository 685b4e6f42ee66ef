"""What a model is given and how it is run, and what is refused in one line."""

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.pretrained import TEXT, tiny_llama, tiny_tokenizer
from torch import nn

from statesize import capture
from statesize.adapters.forward import Forward
from statesize.errors import InputError, ModelError


@pytest.fixture
def model():
    return attention_model("llama", pad_token_id=63)


def refused(error, pattern, model, inputs):
    with pytest.raises(error, match=pattern) as caught:
        capture(model, inputs)
    assert "\n" not in str(caught.value)


def test_a_model_without_weights_is_refused():
    with torch.device("meta"):
        model = nn.Sequential(nn.Embedding(64, 8), nn.Linear(8, 8))
    refused(ModelError, r"Parameter 0\.weight is on the meta device.*from_pretrained", model, token_ids())


@pytest.mark.parametrize("where", ["begin", "end", "mask"])
def test_padding_is_refused(model, where):
    ids = token_ids().clamp(max=62)
    if where == "mask":
        mask = torch.ones_like(ids)
        mask[1, -1] = 0
        refused(
            InputError, "attention_mask marks padding; give texts", model, {"input_ids": ids, "attention_mask": mask}
        )
    else:
        ids[1, slice(2) if where == "begin" else slice(-2, None)] = 63
        refused(InputError, r"several padding tokens \(id 63\); give texts", model, ids)


def test_a_single_mark_at_the_border_is_no_padding(model):
    ids = token_ids()
    ids[:, 0] = ids[:, -1] = 63
    assert len(capture(model, ids).mixers) == 2


def test_a_cache_is_refused(model):
    from transformers import DynamicCache

    inputs = {"input_ids": token_ids(), "past_key_values": DynamicCache()}
    refused(InputError, "past_key_values must be left out, got one", model, inputs)


@pytest.mark.parametrize(
    ("inputs", "pattern"),
    [
        (torch.ones(1, 1, dtype=torch.int64), "must have at least 2 tokens, .*, got 1"),
        (torch.ones(1, 0, dtype=torch.int64), "must have at least 2 tokens, .*, got 0"),
        (torch.ones(5, dtype=torch.int64), r"shape \(sequences, positions\), got \(5,\)"),
        ([1, 2, 3], "got list"),
        ({"attention_mask": torch.ones(1, 3)}, "got NoneType"),
    ],
)
def test_what_is_no_text_is_refused(model, inputs, pattern):
    refused(InputError, pattern, model, inputs)


def test_a_model_runs_without_cache_gradients_dropout_or_autocast(model):
    model.train()
    seen = {}

    def look(_, args, kwargs, output):
        seen.update(kwargs, training=model.training, gradients=torch.is_grad_enabled(), dtype=output.logits.dtype)

    with model.register_forward_hook(look, with_kwargs=True), torch.autocast("cpu", torch.bfloat16):
        assert Forward.of(model, token_ids()).hidden().shape == (2, 21, 64)
    assert {name: seen[name] for name in ("use_cache", "training", "gradients", "dtype")} == {
        "use_cache": False,
        "training": False,
        "gradients": False,
        "dtype": torch.float32,
    }


def test_the_last_hidden_state_of_a_language_model_is_taken_before_its_output_layer(model):
    ids = token_ids()
    for inputs in (ids, {"input_ids": ids}):
        assert Forward.of(model, inputs).hidden().shape == (2, 21, 32)


def test_what_may_do_something_around_a_backbone_is_run_itself(model):
    def backbone_of(model, inputs):
        return Forward.of(model, inputs).backbone

    ids = token_ids()
    assert backbone_of(model, ids) is model.model
    handle = model.register_forward_hook(lambda *_: None)
    assert backbone_of(model, ids) is model
    handle.remove()
    assert backbone_of(model, {"input_ids": ids, "logits_to_keep": 1}) is model
    assert backbone_of(wrapper := nn.Sequential(model), ids) is wrapper
    model.__class__ = type("Derived", (type(model),), {"__module__": __name__})
    assert backbone_of(model, ids) is model


LENGTH = 21
CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


def test_the_plain_causal_mask_changes_nothing():
    model, ids = attention_model("llama"), token_ids(length=LENGTH)
    inputs = {"input_ids": ids, "attention_mask": CAUSAL.expand(2, 1, -1, -1)}
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
