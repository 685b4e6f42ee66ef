"""Decoders whose encoder is held fixed: T of their self-attention is the map that the model itself returns."""

import pytest
import torch
from oracles.attention_models import token_ids
from oracles.tiny_families import beyond
from torch import nn

import statesize as ss
from statesize.codes import Code
from statesize.errors import InputError

IDS = token_ids(length=17).clamp(min=3)
TEXT = token_ids(length=11).clamp(min=3)
SOUND = {"input_features": torch.randn(2, 8, 40, generator=torch.Generator().manual_seed(2))}
# What the encoder of each reads, and settings of its own.
FAMILIES = {
    **dict.fromkeys(("Bart", "Pegasus", "MBart", "Marian"), ({"input_ids": TEXT}, {})),
    "T5": ({"input_ids": IDS.flip(1)}, {}),  # as many tokens as the decoder reads, so that lengths tell nothing
    "Whisper": (SOUND, {"num_mel_bins": 8, "max_source_positions": 20}),
    "Speech2Text": (
        {"input_features": SOUND["input_features"].mT},
        {"input_feat_per_channel": 8, "conv_channels": 16},
    ),
}


def model_of(family):
    both = {"is_encoder_decoder": True, "is_decoder": False, "pad_token_id": 0, "decoder_start_token_id": 1}
    name = "MarianMTModel" if family == "Marian" else f"{family}ForConditionalGeneration"
    model = beyond(name, both | FAMILIES[family][1])
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_s_operators_are_the_maps_that_the_model_returns(family):
    model, read = model_of(family), FAMILIES[family][0]
    inputs = {**read, "decoder_input_ids": IDS, "decoder_attention_mask": torch.ones_like(IDS)}
    captured = ss.capture(model, inputs)
    with torch.no_grad():
        expected = model(**inputs, output_attentions=True).decoder_attentions
    items = list(captured)
    assert len(items) == len(expected) == 2
    for item, maps in zip(items, expected, strict=True):
        assert item.name.startswith(("model.decoder.", "decoder."))
        torch.testing.assert_close(item.operator.dense().float(), maps, rtol=0, atol=1e-5)
    others = [reason for name, reason in captured.skipped.items() if "conv" not in name]
    assert [reason.code for reason in others] == [Code.HELD_FIXED] * 4
    assert captured.run_difference == 0


@pytest.mark.parametrize("family", ["Whisper", "Bart"])
def test_a_decoder_alone_with_a_memory_is_that_of_the_whole_model(family):
    model, read = model_of(family), FAMILIES[family][0]
    with torch.no_grad():
        memory = model.get_encoder()(**read).last_hidden_state
    decoder = model.get_decoder()
    whole = ss.capture(model, {**read, "decoder_input_ids": IDS})
    for item, expected in zip(
        ss.capture(decoder, {"input_ids": IDS, "encoder_hidden_states": memory}), whole, strict=True
    ):
        torch.testing.assert_close(item.operator.dense(), expected.operator.dense())
    assert [item.units for item in ss.capture(decoder, IDS)] == [3, 3]


PADDED = nn.functional.pad(TEXT, (0, 11))
READ = {"input_ids": PADDED, "attention_mask": (PADDED > 0).long(), "decoder_input_ids": IDS}
REFUSED = [
    ("T5", IDS, r"decoder_input_ids.*for T5ForConditionalGeneration.*Give \{\"input_ids\""),
    ("T5", {"input_ids": IDS}, r"decoder_input_ids.*for T5ForConditionalGeneration.*Give \{\"input_ids\""),
    ("Whisper", SOUND, r"decoder_input_ids.*Give \{\"input_features\": …"),
    ("Bart", READ | {"decoder_attention_mask": (IDS != IDS[:, -1:]).long()}, "decoder_attention_mask marks"),
    ("Bart", READ | {"decoder_input_ids": IDS + 61}, "decoder_input_ids must be from 0 to 63"),
    ("Bart", READ | {"decoder_input_ids": nn.functional.pad(IDS, (0, 17))}, "decoder_input_ids begin or end with"),
]


@pytest.mark.parametrize(("family", "inputs", "pattern"), REFUSED)
def test_the_decoder_s_text_is_needed_and_checked_by_name(family, inputs, pattern):
    for call in (ss.capture, ss.profile):
        with pytest.raises(InputError, match=pattern):
            call(model_of(family), inputs)


def test_the_encoder_s_text_may_be_padded():
    assert len(list(ss.capture(model_of("Bart"), READ))) == 2
