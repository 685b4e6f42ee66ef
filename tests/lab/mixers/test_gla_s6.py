"""The decays of GLA-S6."""

import pytest
import torch
from oracles.layers import mix_sequentially
from torch.nn import functional

from statesize.lab.mixers import LanguageModel, ModelConfig


def mixer_of(dtype=torch.float64, **changes):
    config = ModelConfig(**{"mixer": "gla-s6", "width": 8, "heads": 2, "key_size": 4, "layers": 1, **changes})
    return LanguageModel(config, torch.Generator().manual_seed(0)).to(dtype).blocks[0].mixer


def hidden_of(length, dtype=torch.float64):
    return torch.randn(2, length, 8, generator=torch.Generator().manual_seed(length), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("normalised", [False, True])
def test_the_decay_of_state_k_is_k_times_the_step_of_its_head(normalised):
    mixer, hidden = mixer_of(normalised=normalised), hidden_of(5)
    steps = functional.softplus(mixer.step_projection(hidden)).transpose(1, 2)[..., None]
    rates = torch.arange(1, 5, dtype=torch.float64) / (4 if normalised else 1)
    torch.testing.assert_close(mixer.log_decay(hidden), -steps * rates, rtol=1e-6, atol=0)


def test_strong_decays_agree_in_all_forms_and_stay_finite_in_float32():
    """Steps of 0.01 and 10 with 64 states: e^−640 is far beyond what the chunks take."""
    mixer, hidden = (
        mixer_of(torch.float32, key_size=64, smallest_step=0.01, largest_step=10),
        hidden_of(70, torch.float32),
    )
    log_decay = mixer.log_decay(hidden)
    assert log_decay.min() == -16
    mixed = mixer.mixed_values(hidden)
    query, key, value = (part.double() for part in mixer.query_key_value(hidden))
    exact = mix_sequentially(query / 8, key, value, log_decay.double())
    torch.testing.assert_close(mixed.double(), exact, rtol=1e-4, atol=1e-4)
    for gradient in torch.autograd.grad(mixed.square().sum(), list(mixer.parameters()), allow_unused=True):
        assert gradient is None or gradient.isfinite().all()
    torch.testing.assert_close(mixer.operator(hidden).dense() @ mixer.values(hidden), mixed, rtol=1e-3, atol=1e-4)
