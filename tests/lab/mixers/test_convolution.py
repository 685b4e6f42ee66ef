"""S4D: its kernel by the equations, the same at every input."""

import math

import pytest
import torch

from statesize import measure
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.operators import Convolution
from statesize.operators.convolution import causal_convolution


def mixer_of(states=6):
    config = ModelConfig(mixer="s4d", width=8, heads=2, key_size=states, layers=1)
    return LanguageModel(config, torch.Generator().manual_seed(0)).double().blocks[0].mixer


def test_modes_start_as_in_s4d_lin():
    mixer = mixer_of()
    torch.testing.assert_close(mixer.log_rate.exp().detach(), torch.full((8, 3), 0.5).double(), rtol=1e-6, atol=0)
    expected = (math.pi * torch.arange(3)).double().expand(8, -1)
    torch.testing.assert_close(mixer.frequency.detach(), expected, rtol=1e-6, atol=0)
    assert (mixer.log_step.diff() > 0).all()


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


def test_the_operator_depends_on_the_shape_of_the_input_only():
    mixer, hidden = mixer_of(), torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0))
    operator = mixer.operator(hidden.double())
    assert torch.equal(operator.dense(), mixer.operator(torch.zeros(2, 12, 8)).dense())
    assert torch.equal(operator[0].dense(), operator[1].dense())


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


def hyena_of(**changes):
    config = ModelConfig(**{"mixer": "hyena", "width": 8, "heads": 2, "key_size": 16, "layers": 1, **changes})
    return LanguageModel(config, torch.Generator().manual_seed(0)).double().blocks[0].mixer


def hidden_of(length):
    return torch.randn(2, length, 8, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


def test_a_longer_sequence_only_adds_taps():
    kernel = hyena_of().filter(40)
    torch.testing.assert_close(hyena_of().filter(25), kernel[:, :25], rtol=1e-13, atol=1e-13)


def test_the_window_falls_at_the_rates_of_the_configuration():
    mixer = hyena_of(smallest_step=0.01, largest_step=0.2)
    kernel = mixer.filter(50)
    with torch.no_grad():
        rates = mixer.filter.log_rate.exp()
        mixer.filter.log_rate.fill_(-torch.inf)
    position = torch.arange(50, dtype=torch.float64)
    torch.testing.assert_close(mixer.filter(50) * (-rates[:, None] * position).exp(), kernel)
    assert rates.min() > 0.01
    assert rates.max() < 0.2


def test_the_operator_is_a_convolution_between_gates():
    mixer, hidden = hyena_of(), hidden_of(12)
    operator = mixer.operator(hidden)
    output_gate, input_gate, _ = (part.transpose(1, 2) for part in mixer._convolved(hidden))
    middle = Convolution(mixer.filter(12), 12).dense()
    torch.testing.assert_close(operator.dense(), output_gate.diag_embed() @ middle @ input_gate.diag_embed())


def test_its_state_is_what_it_has_seen_and_it_uses_more_than_any_fixed_small_one():
    operator = hyena_of().operator(hidden_of(32))
    measured = measure(operator, tolerances=(), relative_tolerances=(1e-6,), positions=[16])
    assert operator.state_size().tolist() == [31] * 32
    assert measured.ceiling.tolist() == [16]
    assert measured.relative_count.double().mean() > 12


@pytest.mark.parametrize("length", [1, 2, 7, 64, 65])
def test_it_is_the_toeplitz_matrix_of_the_kernel(length):
    generator = torch.Generator().manual_seed(length)
    kernel = torch.randn(3, length, generator=generator, dtype=torch.float64)
    inputs = torch.randn(2, 3, length, generator=generator, dtype=torch.float64)
    expected = (Convolution(kernel, length).dense() @ inputs.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(causal_convolution(kernel, inputs), expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(*shape, 5, generator=generator, dtype=torch.float64) for shape in ((3,), (2, 3))]
    assert torch.autograd.gradcheck(causal_convolution, [tensor.requires_grad_() for tensor in tensors])
