"""What a model is given and how it is run, and what is refused in one line."""

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from torch import nn

from statesize.adapters import capture, logits_difference
from statesize.adapters.forward import measuring, run_model
from statesize.errors import InputError, ModelError


@pytest.fixture
def model():
    return attention_model("llama", pad_token_id=63)


def refused(error, pattern, model, inputs):
    for refuse in (capture, logits_difference):
        with pytest.raises(error, match=pattern) as caught:
            refuse(model, inputs)
        assert "\n" not in str(caught.value)


def test_an_encoder_decoder_is_refused():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    refused(ModelError, r"encoder–decoder .*AutoModelForCausalLM", T5ForConditionalGeneration(config), token_ids())


def test_a_model_without_weights_is_refused():
    with torch.device("meta"):
        model = nn.Sequential(nn.Embedding(64, 8), nn.Linear(8, 8))
    refused(ModelError, r"Parameter 0\.weight is on the meta device.*from_pretrained", model, token_ids())


def test_quantised_weights_are_refused(model):
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = nn.Parameter(torch.zeros(8, 8, dtype=torch.int8), requires_grad=False)
    refused(ModelError, r"up_proj\.weight is int8: quantised .*bfloat16", model, token_ids())
    layer.weight = nn.Parameter(torch.zeros(8, 8))
    model.hf_quantizer = object()
    refused(ModelError, r"quantised weights.*quantization_config", model, token_ids())


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
    refused(InputError, "past_key_values was given; .* leave the cache out", model, inputs)


def test_a_cache_that_is_filled_all_the_same_is_refused():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = attention_model("llama")

        def forward(self, input_ids):
            return self.model(input_ids, use_cache=True)

    with pytest.raises(ModelError, match=r"fills a cache .*use_cache=False"):
        capture(Caching(), token_ids())


@pytest.mark.parametrize(
    ("inputs", "pattern"),
    [
        (torch.ones(1, 1, dtype=torch.int64), "has 1 tokens; at least 2"),
        (torch.ones(1, 0, dtype=torch.int64), "has 0 tokens"),
        (torch.ones(5, dtype=torch.int64), r"shape \(sequences, positions\), got \(5,\)"),
        ([1, 2, 3], "got list"),
        ({"attention_mask": torch.ones(1, 3)}, "got NoneType"),
    ],
)
def test_what_is_no_text_is_refused(model, inputs, pattern):
    refused(InputError, pattern, model, inputs)


def test_what_a_tokenizer_returns_is_taken(model):
    ids = token_ids()
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for item, plain in zip(capture(model, inputs), capture(model, ids), strict=True):
        torch.testing.assert_close(item.operator.dense(), plain.operator.dense())


def test_a_model_runs_without_cache_gradients_dropout_or_autocast(model):
    model.train()
    seen = {}

    def look(_, args, kwargs, output):
        seen.update(kwargs, training=model.training, gradients=torch.is_grad_enabled(), dtype=output.logits.dtype)

    with model.register_forward_hook(look, with_kwargs=True), torch.autocast("cpu", torch.bfloat16), measuring(model):
        assert run_model(model, token_ids()).logits.shape == (2, 1, 64)
        assert run_model(model, token_ids(), all_logits=True).logits.shape == (2, 21, 64)
    assert {name: seen[name] for name in ("use_cache", "training", "gradients", "dtype")} == {
        "use_cache": False,
        "training": False,
        "gradients": False,
        "dtype": torch.float32,
    }


def test_experts_run_one_after_another_meanwhile():
    model = attention_model("gpt_oss")
    model.set_experts_implementation("grouped_mm")
    with measuring(model):
        assert model.config._experts_implementation == "eager"
    assert model.config._experts_implementation == "grouped_mm"
