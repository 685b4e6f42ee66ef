"""Rotary embeddings turn queries as the model itself does at other positions, or are not known."""

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.tiny_families import tiny

from statesize.adapters.kernels.attention import replaced_attention
from statesize.adapters.kernels.rotation import rotation_of
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import ModuleStack
from statesize.adapters.replaced import source_files

LENGTH = 48
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}


@torch.no_grad()
def queries(model, shift=0):
    """Queries of each layer where the text begins at a later position, and what is known to turn them."""
    found, known = [], []
    ids = token_ids(1, LENGTH)
    with ModuleStack(named_parts(model), LENGTH).watching() as running:

        def noted(name, function):
            def attend(module, query, *args, **options):
                found.append(query.float())
                known.append(rotation_of(running, query.float()))
                return function(module, query, *args, **options)

            return attend

        with replaced_attention(source_files(named_parts(model)), noted):
            model(ids, position_ids=torch.arange(LENGTH)[None] + shift, use_cache=False)
    return found, known


@pytest.mark.parametrize(
    "model",
    [
        attention_model("llama"),
        attention_model("llama", rope_parameters=YARN),
        attention_model("gpt_neox"),
        attention_model("phi"),
        attention_model("gemma3_text"),
        tiny("glm"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_queries_are_turned_as_the_model_turns_them_at_later_positions(model):
    shift = 29
    (here, known), (later, _) = queries(model), queries(model, shift)
    for query, rotation, expected in zip(here, known, later, strict=True):
        assert rotation is not None
        moved = rotation.moved(query, torch.full((LENGTH,), shift))
        torch.testing.assert_close(moved, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
        assert float((moved - query).abs().max()) > 0.1 * float(query.abs().max())


def test_layers_without_positions_are_not_turned_and_latent_queries_have_no_known_rotation():
    def turned(rotations):
        return [bool(rotation.cos.numel()) for rotation in rotations]

    for family in ("smollm3", "cohere2"):
        assert turned(queries(tiny(family))[1]) == [True, False]
    assert turned(queries(attention_model("gpt2"))[1]) == [False, False]
    assert queries(attention_model("deepseek_v3"))[1] == [None, None]


@torch.no_grad()
def test_low_precision_does_not_add_up_over_positions():
    model = attention_model("llama")
    exact = queries(model)[1][0]
    rounded = queries(model.bfloat16())[1][0]
    steps = 300 * (exact._angle - rounded._angle)
    assert float(steps.abs().max()) < 0.1
