"""Models that read images beside text: the text's layers are measured, and the image's are named with their reason."""

import pytest
import torch
from oracles.tiny_families import beyond

import statesize as ss
from statesize.codes import Code, Note
from statesize.errors import ModelError

IMAGE = 63
TEXT = [f"model.language_model.layers.{index}.self_attn" for index in range(2)]
VISION = [f"model.vision_tower.encoder.layers.{index}.self_attn" for index in range(2)]

VISION_SIZES = {"image_size": 8, "patch_size": 4}


@pytest.fixture(scope="module")
def model():
    settings = {"vision_config": VISION_SIZES, "image_token_id": IMAGE, "vision_feature_layer": -1}
    return beyond("LlavaForConditionalGeneration", settings)


IDS, PIXELS = torch.arange(1, 13)[None], torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
IDS[:, 2:6] = IMAGE  # one for each of its 2 × 2 patches
INPUTS = {"input_ids": IDS, "pixel_values": PIXELS}


def test_without_an_image_the_text_is_measured(model):
    ids = IDS.clamp(max=60)
    assert [item.name for item in ss.capture(model, {"input_ids": ids})] == TEXT


@pytest.mark.parametrize(
    ("layers", "measured", "skipped"),
    [
        (None, TEXT, VISION),
        (0, TEXT[:1], []),
        (-1, TEXT[1:], []),
        ([*TEXT, VISION[1]], TEXT, VISION[1:]),
    ],
)
def test_a_choice_is_made_before_anything_is_refused(model, layers, measured, skipped):
    capture = ss.capture(model, INPUTS, layers)
    captured = list(capture)
    assert [item.name for item in captured] == measured
    assert max(item.faithfulness for item in captured) < 1e-5
    assert {name: note.code for name, note in capture.skipped.items()} == dict.fromkeys(skipped, Code.LATER_POSITIONS)


def test_the_image_is_part_of_what_is_measured(model):
    first, second = (next(ss.capture(model, INPUTS | {"pixel_values": sign * PIXELS}, TEXT[1])) for sign in (1, -1))
    assert not torch.allclose(first.operator.dense(), second.operator.dense(), atol=1e-5)


@pytest.mark.parametrize("layers", [VISION[0], VISION])
def test_a_choice_that_cannot_be_measured_is_refused_with_its_reason(model, layers):
    with pytest.raises(ModelError) as refused:
        list(ss.capture(model, INPUTS, layers))
    assert Note.of(refused.value).code is Code.LATER_POSITIONS
