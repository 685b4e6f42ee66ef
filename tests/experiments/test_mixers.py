"""The mixers of `variation` against their formulas; the contract of all mixers stands with those of the package."""

import pytest
import torch
from oracles.draws import language_model

import experiments.variation.mixers  # noqa: F401
from statesize import measure


def mixer_of(name, **changes):
    shape = {"vocabulary_size": 8, "width": 12, "heads": 2, "key_size": 6, "layers": 1} | changes
    return language_model(name, 1, **shape).double().blocks[0].mixer


@pytest.mark.parametrize("window", [8, 1])
def test_attention_over_a_window_is_the_formula_of_vaswani(window):
    mixer = mixer_of("sliding", key_size=5, window=window)
    hidden = torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    query, key, value = (hidden @ mixer.projection.weight.mT).split([10, 10, 12], -1)
    heads = []
    for head in range(2):
        q, k, v = (part.chunk(2, -1)[head] for part in (query, key, value))
        seen = torch.ones(40, 40, dtype=torch.bool).tril().triu(1 - window)
        heads.append((q @ k.mT / 5**0.5).masked_fill(~seen, -torch.inf).softmax(-1) @ v)
    expected = torch.cat(heads, -1) @ mixer.output_projection.weight.mT
    torch.testing.assert_close(mixer(hidden), expected, rtol=1e-10, atol=1e-12)
    assert sum(part.numel() for part in mixer.parameters()) == (10 + 10 + 12 + 12) * 12


def test_the_kernel_of_s4d_is_the_impulse_response_of_the_discretised_model():
    """By zero-order hold: x' = A x + u with u constant over a step, for the mode and its conjugate."""
    mixer = mixer_of("s4d")
    with torch.no_grad():
        matrix = mixer.operator(torch.zeros(1, 10, 12)).dense()[0]
        step = mixer.log_step.exp()[:, None]
        mode = torch.complex(-mixer.log_rate.exp(), mixer.frequency)
        weight = torch.complex(*mixer.output_weight.unbind(-1))
        for t in range(10):
            response = weight * ((mode * step * (t + 1)).exp() - (mode * step * t).exp()) / mode
            torch.testing.assert_close(matrix[:, 9, 9 - t], 2 * response.sum(-1).real)


@pytest.mark.parametrize("states", [2, 6])
def test_the_state_of_s4d_holds_as_many_numbers_as_there_are_states(states):
    mixer = mixer_of("s4d", key_size=states)
    with torch.no_grad():
        mixer.log_step.fill_(-1)
        started = mixer.operator(torch.zeros(1, 24, 12))
        mixer.frequency += 1
        moved = mixer.operator(torch.zeros(1, 24, 12))
    assert started.state_size().tolist() == [states] * 24
    # The mode of frequency 0 is its own conjugate: at the start one number of the state is not used.
    for operator, used in ((started, states - 1), (moved, states)):
        measured = measure(operator, tolerances=(), relative_tolerances=(1e-12,), positions=[12])
        assert measured.relative_count.unique().tolist() == [used]
