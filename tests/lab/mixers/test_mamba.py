"""Mamba and Mamba-2 against the formulas of the papers, and against transformers with the same weights."""

import pytest
import torch
from oracles.layers import HEADS, KEYS, LENGTH, WIDTH, by_head, convolved, gate, layer_and_input, normed
from transformers import Mamba2Config, MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer


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


def weights_of_mamba(mixer):
    return {
        "in_proj.weight": torch.cat([mixer.projection.weight, mixer.gate_projection.weight]),
        "conv1d.weight": mixer.convolution.weight[:, None],
        "conv1d.bias": mixer.convolution.bias,
        "x_proj.weight": torch.cat([mixer.step_input.weight, mixer.state_projection.weight]),
        "dt_proj.weight": mixer.step_projection.weight,
        "dt_proj.bias": mixer.step_projection.bias,
        "A_log": mixer.log_rate,
        "D": mixer.D,
        "out_proj.weight": mixer.output_projection.weight,
    }


def weights_of_mamba_2(mixer):
    def value_first(weight):
        C, B, value = weight.split([KEYS, KEYS, 2 * WIDTH])
        return torch.cat([value, B, C])

    inputs = [mixer.gate_projection.weight, value_first(mixer.projection.weight), mixer.step_projection.weight]
    return {
        "in_proj.weight": torch.cat(inputs),
        "conv1d.weight": value_first(mixer.convolution.weight)[:, None],
        "conv1d.bias": value_first(mixer.convolution.bias),
        "dt_bias": mixer.step_projection.bias,
        "A_log": mixer.log_rate,
        "D": mixer.D,
        "norm.weight": mixer.norm_weight.flatten(),
        "out_proj.weight": mixer.output_projection.weight,
    }


SHAPE = {"hidden_size": WIDTH, "state_size": KEYS, "num_hidden_layers": 1}


@pytest.mark.parametrize(
    ("name", "theirs", "weights"),
    [
        ("mamba", lambda: MambaMixer(MambaConfig(**SHAPE), layer_idx=0), weights_of_mamba),
        (
            "mamba2",
            lambda: Mamba2Mixer(Mamba2Config(num_heads=HEADS, head_dim=WIDTH, n_groups=1, **SHAPE), layer_idx=0),
            weights_of_mamba_2,
        ),
    ],
)
def test_transformers_give_the_same_with_the_same_weights(name, theirs, weights):
    mixer, hidden = layer_and_input(name)
    layer = theirs().double()
    layer.load_state_dict(weights(mixer))
    with torch.no_grad():
        expected, given = layer(hidden), mixer(hidden)
    # Their scans are in float32.
    assert (given - expected).abs().max() < 1e-6 * expected.abs().max()
