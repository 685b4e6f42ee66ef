"""Models that read images beside text: the text's layers are measured, and the image's are named with their reason."""

# These fail until a mixer that cannot be measured is told of by its name instead of ending the capture: `capture`
# chooses by `layers` before anything is refused, and without `layers` it keeps the reason in `Capture.skipped`.

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import statesize as ss
from statesize.errors import ModelError

IMAGE = 63
TEXT = [f"model.language_model.layers.{index}.self_attn" for index in range(2)]
VISION = [f"model.vision_tower.encoder.layers.{index}.self_attn" for index in range(2)]


@pytest.fixture(scope="module")
def model():
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    text = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, vision_feature_layer=-1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlavaForConditionalGeneration(config).eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 60, (1, 12), generator=generator)
    ids[:, 2:6] = IMAGE  # one for each of its 2 × 2 patches
    return {"input_ids": ids, "pixel_values": torch.randn(1, 3, 8, 8, generator=generator)}


def test_without_an_image_the_text_is_measured(model, inputs):
    ids = inputs["input_ids"].clamp(max=60)
    assert [item.name for item in ss.capture(model, {"input_ids": ids})] == TEXT
    assert list(ss.profile(model, ids).summary()["layer"]) == TEXT


@pytest.mark.parametrize("layers", [TEXT, TEXT[1], TEXT[:1]])
def test_a_choice_of_the_text_s_layers_is_made_before_anything_is_refused(model, inputs, layers):
    capture = ss.capture(model, inputs, layers)
    chosen = [layers] if isinstance(layers, str) else layers
    assert [mixer.name for mixer in capture.mixers] == chosen
    captured = list(capture)
    assert [item.name for item in captured] == chosen
    assert max(item.faithfulness for item in captured) < 1e-5
    # The image is part of what is measured.
    other = ss.capture(model, inputs | {"pixel_values": -inputs["pixel_values"]}, layers)
    assert not torch.allclose(next(other).operator.dense(), captured[0].operator.dense(), atol=1e-5)


def test_without_a_choice_all_are_measured_that_can_be(model, inputs):
    capture = ss.capture(model, inputs)
    assert [mixer.name for mixer in capture.mixers] == TEXT
    assert [item.name for item in capture] == TEXT
    for name in VISION:
        assert "attends to later positions" in str(capture.skipped[name])
    assert len(capture.skipped) == len(VISION)


def test_names_and_indices_count_what_can_be_measured(model, inputs):
    assert [item.name for item in ss.capture(model, inputs, 0)] == TEXT[:1]
    assert [item.name for item in ss.capture(model, inputs, -1)] == TEXT[1:]


@pytest.mark.parametrize("layers", [VISION[0], VISION])
def test_a_choice_that_cannot_be_measured_is_refused_with_its_reason(model, inputs, layers):
    with pytest.raises(ModelError, match=r"Mixer model\.vision_tower\.encoder\.layers\.\d\.self_attn attends to later"):
        list(ss.capture(model, inputs, layers))


def test_what_is_left_of_a_choice_is_measured(model, inputs):
    capture = ss.capture(model, inputs, [*TEXT, VISION[1]])
    assert [item.name for item in capture] == TEXT
    assert list(capture.skipped) == [VISION[1]]


def test_a_model_of_which_nothing_can_be_measured_is_refused_with_the_reason(model, inputs):
    with pytest.raises(ModelError, match="attends to later positions"):
        ss.capture(model.model.vision_tower, inputs["pixel_values"])
