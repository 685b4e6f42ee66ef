"""S4D: its kernel by the equations, the same at every input."""

import pytest
import torch

import experiments.variation.mixers  # noqa: F401
from statesize import measure
from statesize.lab.mixers import LanguageModel, ModelConfig


def mixer_of(states=6):
    config = ModelConfig(mixer="s4d", width=8, heads=2, key_size=states, layers=1)
    return LanguageModel(config, torch.Generator().manual_seed(0)).double().blocks[0].mixer


def test_the_kernel_is_the_impulse_response_of_the_discretised_model():
    """By zero-order hold: x' = A x + u with u constant over a step, for the mode and its conjugate."""
    mixer = mixer_of()
    with torch.no_grad():
        matrix = mixer.operator(torch.zeros(1, 10, 8)).dense()[0]
        step = mixer.log_step.exp()[:, None]
        mode = torch.complex(-mixer.log_rate.exp(), mixer.frequency)
        weight = torch.complex(*mixer.output_weight.unbind(-1))
        for t in range(10):
            response = weight * ((mode * step * (t + 1)).exp() - (mode * step * t).exp()) / mode
            torch.testing.assert_close(matrix[:, 9, 9 - t], 2 * response.sum(-1).real)


@pytest.mark.parametrize("states", [2, 6])
def test_its_state_holds_as_many_numbers_as_there_are_states(states):
    mixer = mixer_of(states)
    with torch.no_grad():
        mixer.log_step.fill_(-1)
        started = mixer.operator(torch.zeros(1, 24, 8))
        mixer.frequency += 1
        moved = mixer.operator(torch.zeros(1, 24, 8))
    assert started.state_size().tolist() == [states] * 24
    # The mode of frequency 0 is its own conjugate: at the start one number of the state is not used.
    for operator, used in ((started, states - 1), (moved, states)):
        measured = measure(operator, tolerances=(), relative_tolerances=(1e-12,), positions=[12])
        assert measured.relative_count.unique().tolist() == [used]
