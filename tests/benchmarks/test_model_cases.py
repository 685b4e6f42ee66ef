import pickle

import pytest
import torch

from statesize.adapters import capture
from statesize.benchmarks.models import model_cases, random_tokens

# What is measured of each: its kind, heads or channels, and how many share one T.
FULL = {
    "falcon_mamba": ("mamba", 8192, 1),
    "llama_3": ("attention", 32, 128),
    "mamba_2": ("mamba2", 80, 64),
    "qwen3_next": ("gated delta rule", 32, 128),
}


@pytest.mark.parametrize("case", model_cases(quick=True), ids=lambda case: case.name)
def test_a_narrow_model_has_one_mixer_of_the_kind(case):
    before = torch.random.get_rng_state()
    model, again = case.make(), pickle.loads(pickle.dumps(case)).make()  # noqa: S301
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, again.get_parameter(name))
    (item,) = capture(model, random_tokens(24))
    assert item.kind == FULL[case.name][0]
    assert item.units_operator(slice(0, 1)).length == 24


@pytest.mark.slow
@pytest.mark.parametrize("case", model_cases(quick=False), ids=lambda case: case.name)
def test_a_full_model_has_the_published_shape(case):
    (mixer,) = capture(case.make(), random_tokens(8)).mixers
    assert (mixer.kind, mixer.units, mixer.multiplicity) == FULL[case.name]


def test_tokens():
    assert random_tokens(9).shape == (1, 9)
    assert torch.equal(random_tokens(9), random_tokens(9))
