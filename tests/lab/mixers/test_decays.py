"""Where the decays of S6 start."""

import pytest
import torch

from statesize.lab.mixers import ModelConfig
from statesize.lab.mixers.decays import head_initial_values, initial_log_rates, inverse_softplus, spread_steps


def test_rates_are_the_numbers_of_the_states_or_those_over_their_number():
    torch.testing.assert_close(initial_log_rates(5, normalised=False).exp(), torch.arange(1.0, 6.0))
    torch.testing.assert_close(initial_log_rates(5, normalised=True).exp(), torch.arange(1.0, 6.0) / 5)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_steps_lie_in_the_middles_of_equal_ratios(count):
    steps = spread_steps(count, 0.001, 0.1).double()
    assert steps.min() > 0.001
    assert steps.max() < 0.1
    torch.testing.assert_close(steps.log().mean().exp().item(), 0.01, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        steps[1:] / steps[:-1], torch.full((count - 1,), 100 ** (1 / count)).double(), rtol=1e-5, atol=0
    )


def test_softplus_gives_back_small_and_large_values():
    values = torch.tensor([1e-4, 1e-3, 0.1, 1.0, 10.0, 50.0])
    torch.testing.assert_close(torch.nn.functional.softplus(inverse_softplus(values)), values, rtol=1e-4, atol=0)


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_heads_with_one_decay_start_with_steps_and_rates_of_mamba_2_and_keep_some_of_the_past(heads):
    values = head_initial_values(ModelConfig("mamba2", width=24, heads=heads))
    steps, rates = torch.nn.functional.softplus(values["step_projection.bias"]), values["log_rate"].exp()
    assert bool(((steps > 0.001) & (steps < 0.1) & (rates > 1) & (rates < 16)).all())
    assert bool(((-steps * rates).exp() > 0.7).all())
