"""Recipes for published models: narrow ones run through, full ones have the published shapes."""

from dataclasses import replace

import pytest
import torch

from benchmarks.cases import random_tokens
from benchmarks.language_models import RECIPES, predict, predictions
from statesize import capture

NARROW = {
    "falcon_mamba": {"hidden_size": 32, "intermediate_size": 64, "time_step_rank": 4},
    "mamba": {"hidden_size": 32, "intermediate_size": 64, "time_step_rank": 4},
    "gpt_neox": {"hidden_size": 64, "intermediate_size": 48, "num_attention_heads": 4},
    "phi": {"hidden_size": 64, "intermediate_size": 48, "num_attention_heads": 4},
    "mistral": {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2},
    "llama": {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2},
}
# Kind, heads or channels, how many share one operator, and the parameters in billions that the models' cards state.
PUBLISHED = {
    "falcon_mamba": ("mamba", 8192, 1, 7.27),
    "mamba": ("mamba", 5120, 1, 2.77),
    "gpt_neox": ("attention", 32, 80, 2.78),
    "phi": ("attention", 32, 80, 2.78),
    "mistral": ("sliding attention", 32, 128, 7.24),
    "llama": ("attention", 32, 128, 8.03),
}
BY_TYPE = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.model_type)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(recipe, marks=pytest.mark.slow if number % 2 else (), id=recipe.model_type)
        for number, recipe in enumerate(RECIPES)
    ],
)
def test_two_narrow_layers_run_through(recipe):
    threads = torch.get_num_threads()
    found = predict(recipe, 24, threads, **NARROW[recipe.model_type])
    kind, _, _, billions = PUBLISHED[recipe.model_type]
    assert found.kind == kind
    assert found.measured == min(recipe.channels, found.units)
    assert found.results == recipe.layers * found.measured * 23 * 52
    assert found.parameters / 1e9 == pytest.approx(billions, rel=0.005)
    # All weights as they are stored, and less than half as much again for what is in float32 while it runs.
    weights = found.parameters * recipe.dtype.itemsize
    assert weights < found.memory < 1.5 * weights + 3e9
    assert min(found.seconds, found.run_seconds) > 0
    assert 0 <= found.faithfulness < 1e-2  # weights in bfloat16
    assert recipe.model in found.command


@pytest.mark.slow
@BY_TYPE
def test_a_layer_of_full_width(recipe):
    (mixer,) = capture(recipe.make(layers=1), random_tokens(8)).mixers
    assert (mixer.kind, mixer.units, mixer.multiplicity) == PUBLISHED[recipe.model_type][:3]


def test_a_prediction_in_a_process_of_its_own():
    (recipe,) = (recipe for recipe in RECIPES if recipe.model_type == "llama")
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    narrow = replace(recipe, vocabulary=64, shape=shape, channels=2)
    (found,) = predictions([narrow], 24)
    assert (found.model, found.length, found.units, found.measured) == (recipe.model, 24, 4, 2)
    assert found.memory > 2**20
