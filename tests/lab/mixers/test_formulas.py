"""Chunks and scans against one token after another, and mixers against the formulas of their papers."""

import pytest
import torch
from oracles.draws import language_model
from torch.nn import functional

from statesize.lab.mixers import ModelConfig
from statesize.lab.mixers import s6 as module
from statesize.lab.mixers.chunk import CHUNK_SIZE, minimum_log_decay, mix_chunked
from statesize.lab.mixers.deltanet import mix_by_delta_rule
from statesize.lab.mixers.s6 import S6, selective_scan
from statesize.lab.mixers.starts import spread_steps, step_projection
from statesize.operators import Recurrence


def mixer_of(name, **changes):
    shape = {"vocabulary_size": 8, "width": 8, "heads": 2, "key_size": 4, "layers": 1} | changes
    return language_model(name, 1, **shape).double().blocks[0].mixer


def hidden_of(length):
    return torch.randn(2, length, 8, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


def inputs(length, dtype=torch.float64):
    """Queries, keys of length 1, values, and numbers of 0 to 1 by key and by head."""
    g = torch.Generator().manual_seed(length)
    query, key, value = (torch.randn(2, 3, length, size, generator=g, dtype=torch.float64) for size in (5, 5, 4))
    by_key, by_head = (torch.rand(2, 3, length, size, generator=g, dtype=torch.float64) for size in (5, 1))
    tensors = query, functional.normalize(key, dim=-1), value, by_key, by_head
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def mix_sequentially(query, key, value, log_decay=None, strength=None):
    """y_t = q_tᵀ S_t, S_t = diag(a_t) S_{t−1} + k_t v_tᵀ; under the delta rule β_t (v_t − S_{t−1}ᵀ k_t) is written."""
    state, outputs = key.new_zeros(*key.shape[:-2], key.shape[-1], value.shape[-1]), []
    for t in range(key.shape[-2]):
        k, v = key[..., t, :, None], value[..., t, None, :]
        if log_decay is not None:
            state = log_decay.expand(key.shape)[..., t, :, None].exp() * state
        if strength is not None:
            v = strength[..., t, :, None] * (v - k.mT @ state)
        state = state + k * v
        outputs.append((query[..., t, None, :] @ state).squeeze(-2))
    return torch.stack(outputs, -2)


def assert_same_with_gradients(found, expected, tensors, close, close_gradients):
    torch.testing.assert_close(found, expected, rtol=close, atol=close)
    gradients = (torch.autograd.grad(outputs.square().sum(), tensors) for outputs in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=close_gradients, atol=close_gradients)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 64, 65, 100])
@pytest.mark.parametrize("batch", [None, 2, 1])
def test_chunks_equal_the_sequential_definition(length, batch):
    query, key, value, decay, _ = inputs(length)
    log_decay = None if batch is None else -decay[:batch]
    expected = mix_sequentially(query, key, value, log_decay)
    torch.testing.assert_close(mix_chunked(query, key, value, log_decay), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
def test_one_decay_for_all_keys_may_be_as_strong_as_it_likes(dtype, close):
    log_decay = -torch.logspace(-3, 3, 70, dtype=dtype)[:, None].requires_grad_()
    tensors = [*inputs(70, dtype)[:3], log_decay]
    assert_same_with_gradients(mix_chunked(*tensors), mix_sequentially(*tensors), tensors, close, 100 * close)


@pytest.mark.parametrize(("size", "length"), [(CHUNK_SIZE, CHUNK_SIZE), (CHUNK_SIZE, 3 * CHUNK_SIZE + 5), (8, 70)])
def test_the_strongest_decays_stay_accurate_and_finite_in_float32(size, length):
    """At the bound everywhere, e^128 lies above the diagonal: outputs and gradients must not see it."""
    log_decay = torch.full((2, 3, length, 5), minimum_log_decay(size), requires_grad=True)
    tensors = [*inputs(length, torch.float32)[:3], log_decay]
    outputs = mix_chunked(*tensors, chunk_size=size)
    expected = mix_sequentially(*(tensor.double() for tensor in tensors))
    torch.testing.assert_close(outputs.double(), expected, rtol=1e-4, atol=1e-4)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(outputs.sum(), tensors))


@pytest.mark.parametrize("length", [1, 32, 71])
@pytest.mark.parametrize("strongest", [0.0, 1.0, 500.0])
def test_chunks_of_the_delta_rule_equal_its_definition(length, strongest):
    query, key, value, _, strength = inputs(length)
    log_decay = -strongest * torch.rand(2, 3, length, 1, generator=torch.Generator().manual_seed(9)).double()
    tensors = [query, key, value, strength, log_decay.requires_grad_()][: 5 if strongest else 4]
    expected = mix_sequentially(query, key, value, log_decay if strongest else None, strength)
    found = mix_by_delta_rule(query, key, value, strength, log_decay if strongest else None)
    assert_same_with_gradients(found, expected, tensors, 1e-10, 1e-8)


@pytest.mark.parametrize("name", ["deltanet", "gated-deltanet"])
def test_deltanet_is_the_formula_of_its_paper(name):
    mixer, hidden, generator = mixer_of(name, key_size=5), hidden_of(40), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    projected = hidden @ mixer.projection.weight.mT
    convolved = torch.zeros_like(projected)
    for lag in range(mixer.convolution.size):
        convolved[:, lag:] += projected[:, : 40 - lag] * mixer.convolution.weight[:, -1 - lag]
    parts = (convolved * convolved.sigmoid()).split([10, 10, 8], -1)
    query, key, value = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts)
    query, key = (part / part.square().sum(-1, keepdim=True).sqrt() for part in (query, key))
    strength, log_decay = (hidden @ mixer.strength_projection.weight.mT).sigmoid().mT[..., None], None
    if name == "gated-deltanet":
        steps = (hidden @ mixer.step_projection.weight.mT + mixer.step_projection.bias).exp().log1p()
        log_decay = (-mixer.log_rate.exp() * steps).mT[..., None]
    mixed = mix_sequentially(query / 5**0.5, key, value, log_decay, strength).transpose(1, 2)
    mixed = (mixed / (mixed.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.norm_weight).flatten(-2)
    if name == "gated-deltanet":
        gate = hidden @ mixer.gate_projection.weight.mT
        mixed = mixed * gate * gate.sigmoid()
    torch.testing.assert_close(mixer(hidden), mixed @ mixer.output_projection.weight.mT, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("normalised", [False, True])
def test_the_decay_of_gla_s6_is_k_times_the_step_of_its_head(normalised):
    mixer, hidden = mixer_of("gla-s6", normalised=normalised), hidden_of(5)
    steps = functional.softplus(mixer.step_projection(hidden)).transpose(1, 2)[..., None]
    rates = torch.arange(1, 5, dtype=torch.float64) / (4 if normalised else 1)
    torch.testing.assert_close(mixer.log_decay(hidden), -steps * rates, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("normalised", "largest"), [(False, 4), (True, 1)])
def test_rates_of_s6_start_at_one_to_n_or_at_that_over_n(normalised, largest):
    mixer = mixer_of("s6", normalised=normalised)
    # A mixer that is built outside of a model starts alike.
    alone = S6(ModelConfig(mixer="s6", width=8, heads=2, key_size=4, normalised=normalised)).double()
    expected = torch.linspace(largest / 4, largest, 4, dtype=torch.float64).expand(8, -1)
    for rates in (mixer.log_rate, alone.log_rate):
        torch.testing.assert_close(rates.exp().detach(), expected, rtol=1e-6, atol=0)


def test_s6_is_the_equations_of_its_paper():
    mixer, hidden = mixer_of("s6"), hidden_of(9)
    with torch.no_grad():
        mixed, u = mixer.mixed_values(hidden).squeeze(-1), mixer.values(hidden).squeeze(-1)
        steps, B, C = mixer._selected(u.transpose(1, 2))
        state = torch.zeros(2, 8, 4, dtype=torch.float64)
        for t in range(9):
            step = steps[:, t, :, None]
            state = torch.exp(-step * mixer.log_rate.exp()) * state + step * B[:, t, None] * u[..., t, None]
            torch.testing.assert_close(mixed[..., t], (C[:, t, None] * state).sum(-1))


def scanned(length, dtype=torch.float64, strongest=1.0):
    """Values, steps, rates, B and C of a selective scan."""
    g = torch.Generator().manual_seed(length)
    values, steps, rates, B, C = (
        torch.randn(*shape, generator=g, dtype=torch.float64)
        for shape in ((2, length, 3), (2, length, 3), (3, 4), (2, length, 4), (2, length, 4))
    )
    tensors = values, steps.exp() / 5, -strongest * rates.exp(), B, C
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def defined(values, steps, rates, B, C):
    """The same map, by stepping through a Recurrence of batch shape (sequence, channel)."""
    steps = steps.transpose(1, 2).unsqueeze(-1)
    operator = Recurrence((steps * rates[:, None]).exp(), steps * B[:, None], C[:, None])
    return operator.apply(values.transpose(1, 2).unsqueeze(-1)).squeeze(-1).transpose(1, 2)


@pytest.mark.parametrize("block", [1, 2 * 12 * 3, module._BLOCK_NUMBERS])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 20])
def test_a_selective_scan_equals_the_recurrence(length, block, monkeypatch):
    """In blocks of one position, of three, and of all."""
    monkeypatch.setattr(module, "_BLOCK_NUMBERS", block)
    tensors = scanned(length)
    torch.testing.assert_close(selective_scan(*tensors), defined(*tensors), rtol=1e-12, atol=1e-12)
    if length in (1, 7):
        assert torch.autograd.gradcheck(selective_scan, tensors)


@pytest.mark.parametrize("strongest", [1e-3, 1.0, 100.0])
def test_no_decay_of_a_scan_is_too_weak_or_too_strong_for_float32(strongest):
    tensors = scanned(150, torch.float32, strongest)
    outputs = selective_scan(*tensors)
    exact = defined(*(tensor.detach().double() for tensor in tensors))
    torch.testing.assert_close(outputs.double(), exact, rtol=1e-4, atol=1e-4)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(outputs.sum(), tensors))


def test_a_scan_leaves_its_inputs_and_earlier_results_alone():
    """Blocks share their memory: nothing that was returned or given may lie in it."""
    tensors = scanned(20)
    kept, first = [tensor.detach().clone() for tensor in tensors], selective_scan(*tensors)
    again = first.detach().clone()
    selective_scan(*scanned(20, strongest=3.0)).sum().backward()
    one, other = (torch.autograd.grad(first.sum(), tensors, retain_graph=True) for _ in range(2))
    assert torch.equal(first, again)
    assert all(map(torch.equal, (*tensors, *one), (*kept, *other)))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_steps_lie_in_the_middles_of_equal_ratios(count):
    config = ModelConfig(width=8, heads=2)
    # Of 0.001 to 0.1, in so many parts.
    expected = 1e-3 * 100 ** ((torch.arange(count).double() + 0.5) / count)
    torch.testing.assert_close(spread_steps(config, count).double(), expected, rtol=1e-5, atol=0)
    steps = functional.softplus(step_projection(config, count).bias).double()
    torch.testing.assert_close(steps, expected, rtol=1e-4, atol=0)
