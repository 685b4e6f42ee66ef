"""Mamba and Mamba-2 against the formulas of the papers."""

import torch
from oracles.layers import HEADS, KEYS, LENGTH, WIDTH, by_head, convolved, gate, layer_and_input, normed


def softplus(values):
    return values.exp().log1p()


def test_mamba_is_the_formula_of_gu_and_dao():
    mixer, hidden = layer_and_input("mamba")
    inputs = convolved(hidden @ mixer.projection.weight.mT, mixer.convolution)
    assert inputs.shape[-1] == mixer.convolution.bias.numel() == 2 * WIDTH
    assert mixer.step_input.weight.shape == (1, 2 * WIDTH)
    low_rank = inputs @ mixer.step_input.weight.mT @ mixer.step_projection.weight.mT
    steps = softplus(low_rank + mixer.step_projection.bias)
    B, C = (inputs @ mixer.state_projection.weight.mT).split(KEYS, -1)
    state, outputs = torch.zeros(2, 2 * WIDTH, KEYS, dtype=torch.float64), []
    for t in range(LENGTH):
        step = steps[:, t, :, None]
        state = (-step * mixer.log_rate.exp()).exp() * state + step * B[:, t, None] * inputs[:, t, :, None]
        outputs.append((state * C[:, t, None]).sum(-1) + mixer.D * inputs[:, t])
    expected = (torch.stack(outputs, 1) * gate(mixer, hidden)) @ mixer.output_projection.weight.mT
    torch.testing.assert_close(mixer(hidden), expected, rtol=1e-9, atol=1e-10)
    assert mixer.norm_weight is None


def test_mamba_2_is_the_formula_of_dao_and_gu():
    mixer, hidden = layer_and_input("mamba2")
    inputs = convolved(hidden @ mixer.projection.weight.mT, mixer.convolution)
    C, B, value = inputs.split([KEYS, KEYS, 2 * WIDTH], -1)
    assert mixer.convolution.bias is not None
    value = by_head(value)
    steps = softplus(hidden @ mixer.step_projection.weight.mT + mixer.step_projection.bias)
    state, outputs = torch.zeros(2, HEADS, KEYS, 2 * WIDTH // HEADS, dtype=torch.float64), []
    for t in range(LENGTH):
        step = steps[:, t, :, None, None]
        written = step * B[:, t, None, :, None] * value[:, t, :, None]
        state = (-step * mixer.log_rate.exp()[:, None, None]).exp() * state + written
        outputs.append((C[:, t, None, None] @ state).squeeze(-2) + mixer.D[:, None] * value[:, t])
    mixed = normed(torch.stack(outputs, 1).flatten(-2) * gate(mixer, hidden), mixer.norm_weight.flatten())
    torch.testing.assert_close(mixer(hidden), mixed @ mixer.output_projection.weight.mT, rtol=1e-9, atol=1e-10)
