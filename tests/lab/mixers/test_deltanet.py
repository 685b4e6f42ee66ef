"""The delta rule in chunks against one token after another, and DeltaNet against the formulas of the papers."""

import pytest
import torch
from oracles.layers import HEADS, KEYS, LENGTH, WIDTH, by_head, convolved, gate, layer_and_input, normed

from statesize.lab.mixers.deltanet import mix_by_delta_rule


@pytest.mark.parametrize("length", [1, 32, 71])
@pytest.mark.parametrize("strongest", [0.0, 1.0, 500.0])
def test_chunks_equal_the_sequential_definition_and_so_do_their_gradients(length, strongest):
    generator = torch.Generator().manual_seed(length)
    query, key = (torch.randn(2, 3, length, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    value = torch.randn(2, 3, length, 4, generator=generator, dtype=torch.float64)
    strength, decay = (torch.rand(2, 3, length, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    log_decay = -strongest * decay if strongest else None
    tensors = [query, torch.nn.functional.normalize(key, dim=-1), value, strength]
    tensors = [part.requires_grad_() for part in ([*tensors, log_decay] if strongest else tensors)]
    chunked = mix_by_delta_rule(*tensors[:4], tensors[4] if strongest else None)
    state, outputs = torch.zeros(2, 3, 5, 4, dtype=torch.float64), []
    for t in range(length):
        key_t, value_t, strength_t, *decay_t = (part[..., t, :] for part in tensors[1:])
        state = decay_t[0].exp()[..., None] * state if decay_t else state
        missing = value_t - (key_t[..., None, :] @ state).squeeze(-2)
        state = state + (strength_t * key_t)[..., None] * missing[..., None, :]
        outputs.append((tensors[0][..., t, None, :] @ state).squeeze(-2))
    expected = torch.stack(outputs, -2)
    torch.testing.assert_close(chunked, expected, rtol=1e-10, atol=1e-10)
    gradients = (torch.autograd.grad(one.square().sum(), tensors) for one in (chunked, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["deltanet", "gated-deltanet"])
def test_it_is_the_formula_of_its_paper(name):
    mixer, hidden = layer_and_input(name)
    inputs = convolved(hidden @ mixer.projection.weight.mT, mixer.convolution)
    query, key, value = (by_head(part) for part in inputs.split([HEADS * KEYS] * 2 + [WIDTH], -1))
    query, key = (part / part.square().sum(-1, keepdim=True).sqrt() for part in (query, key))
    strength = (hidden @ mixer.strength_projection.weight.mT).sigmoid()
    decay = torch.ones_like(strength)
    if name == "gated-deltanet":
        steps = (hidden @ mixer.step_projection.weight.mT + mixer.step_projection.bias).exp().log1p()
        decay = (-mixer.log_rate.exp() * steps).exp()
    state = torch.zeros(2, HEADS, KEYS, WIDTH // HEADS, dtype=torch.float64)
    outputs = []
    for t in range(LENGTH):
        k, v, beta = key[:, t], value[:, t], strength[:, t, :, None, None]
        transition = decay[:, t, :, None, None] * (torch.eye(KEYS) - beta * k[..., None] * k[..., None, :])
        state = transition @ state + beta * k[..., None] * v[..., None, :]
        outputs.append((query[:, t, :, None] @ state).squeeze(-2) / KEYS**0.5)
    mixed = normed(torch.stack(outputs, 1), mixer.norm_weight).flatten(-2)
    mixed = mixed * gate(mixer, hidden) if name == "gated-deltanet" else mixed
    torch.testing.assert_close(mixer(hidden), mixed @ mixer.output_projection.weight.mT, rtol=1e-9, atol=1e-10)
