"""Gated linear attention as published against the formula of its paper."""

import torch
from oracles.layers import HEADS, KEYS, LENGTH, WIDTH, by_head, convolved, gate, layer_and_input, normed


def test_it_is_the_formula_of_yang():
    mixer, hidden = layer_and_input("gla-full")
    inputs = convolved(hidden @ mixer.projection.weight.mT, mixer.convolution)
    query, key, value = (by_head(part) for part in inputs.split([HEADS * KEYS] * 2 + [WIDTH], -1))
    assert mixer.decay_input.weight.shape == (16, WIDTH)
    logits = hidden @ mixer.decay_input.weight.mT @ mixer.decay.weight.mT + mixer.decay.bias
    decay = by_head(logits.sigmoid() ** (1 / 16))
    state = torch.zeros(2, HEADS, KEYS, WIDTH // HEADS, dtype=torch.float64)
    outputs = []
    for t in range(LENGTH):
        state = decay[:, t, :, :, None] * state + key[:, t, :, :, None] * value[:, t, :, None]
        outputs.append((query[:, t, :, None] @ state).squeeze(-2) / KEYS**0.5)
    mixed = normed(torch.stack(outputs, 1), mixer.norm_weight).flatten(-2)
    expected = (mixed * gate(mixer, hidden)) @ mixer.output_projection.weight.mT
    torch.testing.assert_close(mixer(hidden), expected, rtol=1e-9, atol=1e-10)
