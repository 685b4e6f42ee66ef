"""S6: the selective state-space model by its equations, and what its normalisation does to the memory at the start."""

import pytest
import torch
from torch.nn import functional

from statesize import capture, measure
from statesize.lab.mixers import S6, LanguageModel, ModelConfig


def mixer_of(**changes):
    config = ModelConfig(**{"mixer": "s6", "width": 6, "heads": 2, "key_size": 4, "layers": 1, **changes})
    return LanguageModel(config, torch.Generator().manual_seed(0)).double().blocks[0].mixer


def hidden_of(length, width=6):
    return torch.randn(2, length, width, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


@pytest.mark.parametrize(("normalised", "largest"), [(False, 4), (True, 1)])
def test_rates_start_at_one_to_n_or_at_that_over_n(normalised, largest):
    mixer = mixer_of(normalised=normalised)
    expected = torch.linspace(largest / 4, largest, 4, dtype=torch.float64).expand(6, -1)
    torch.testing.assert_close(mixer.log_rate.exp().detach(), expected, rtol=1e-6, atol=0)
    # A mixer that is built outside of a model starts alike.
    alone = S6(ModelConfig(mixer="s6", width=6, heads=2, key_size=4, normalised=normalised))
    torch.testing.assert_close(alone.log_rate.double(), mixer.log_rate, rtol=1e-6, atol=0)


def test_step_sizes_start_on_the_scale_that_the_configuration_gives():
    mixer = mixer_of(smallest_step=0.01, largest_step=0.02)
    torch.nn.init.zeros_(mixer.step_projection.weight)
    steps = functional.softplus(mixer.step_projection(hidden_of(1)))
    assert steps.min() > 0.01
    assert steps.max() < 0.02
    assert (steps[0, 0].diff() > 0).all()


def test_mixed_values_are_those_of_the_equations():
    mixer, hidden = mixer_of(), hidden_of(9)
    with torch.no_grad():
        mixed, u = mixer.mixed_values(hidden).squeeze(-1), mixer.values(hidden).squeeze(-1)
        steps, B, C = mixer._selected(u.transpose(1, 2))
        for channel in range(6):
            state = torch.zeros(2, 4, dtype=torch.float64)
            for t in range(9):
                step = steps[:, t, channel, None]
                decay = torch.exp(-step * mixer.log_rate[channel].exp())
                state = decay * state + step * B[:, t] * u[:, channel, t, None]
                torch.testing.assert_close(mixed[:, channel, t], (C[:, t] * state).sum(-1))


def relative_ess(mixer, states, normalised):
    """Mean over layers and channels in the middle of 192 random tokens, before training."""
    config = ModelConfig(mixer, 64, width=32, heads=2, layers=2, key_size=states, normalised=normalised)
    model = LanguageModel(config, torch.Generator().manual_seed(0)).double()
    tokens = torch.randint(0, 64, (1, 192), generator=torch.Generator().manual_seed(1))
    measured = [
        measure(mixer.operator, tolerances=(), relative_tolerances=(1e-2,), positions=[96], engine="square_root")
        for mixer in capture(model, tokens)
    ]
    return torch.stack([each.relative_count.double().mean() for each in measured]).mean().item()


@pytest.mark.parametrize("mixer", ["s6", "gla-s6"])
def test_at_the_start_more_states_add_little_memory_unless_normalised(mixer):
    """Parnichkun et al. 2025: ESS at initialisation against the state-size."""
    for states in (16, 64):
        assert relative_ess(mixer, states, normalised=True) > relative_ess(mixer, states, normalised=False)
    assert relative_ess(mixer, 64, normalised=False) < 1.5 * relative_ess(mixer, 16, normalised=False)
    assert relative_ess(mixer, 64, normalised=True) > 1.7 * relative_ess(mixer, 16, normalised=True)
