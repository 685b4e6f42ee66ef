"""The chunk-parallel form against the sequential definition."""

import pytest
import torch
from oracles.layers import mix_sequentially

from statesize.lab.mixers.chunk import CHUNK_SIZE, MINIMUM_LOG_DECAY, mix_chunked

LENGTHS = (1, 2, 31, 32, 33, 64, 65, 100)


def inputs(length, dtype=torch.float64, strongest=1.0, decay_batch=(2, 3)):
    generator = torch.Generator().manual_seed(length)
    query, key = (torch.randn(2, 3, length, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    value = torch.randn(2, 3, length, 4, generator=generator, dtype=torch.float64)
    log_decay = -strongest * torch.rand(*decay_batch, length, 5, generator=generator, dtype=torch.float64)
    return [tensor.to(dtype).requires_grad_() for tensor in (query, key, value, log_decay)]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("decay_batch", [None, (2, 3), (1, 3)])
def test_equals_the_sequential_definition(length, decay_batch):
    query, key, value, log_decay = inputs(length, decay_batch=decay_batch or (2, 3))
    log_decay = None if decay_batch is None else log_decay
    expected = mix_sequentially(query, key, value, log_decay)
    torch.testing.assert_close(mix_chunked(query, key, value, log_decay), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_decay_for_all_keys_may_be_as_strong_as_it_likes(dtype):
    query, key, value, _ = inputs(70, dtype)
    log_decay = -torch.logspace(-3, 3, 70, dtype=dtype)[:, None].requires_grad_()
    tensors = [query, key, value, log_decay]
    expected, given = mix_sequentially(*tensors), mix_chunked(*tensors)
    close = {"rtol": 1e-11, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(given, expected, **close)
    gradients = (torch.autograd.grad(outputs.square().sum(), tensors) for outputs in (given, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, **{name: 100 * size for name, size in close.items()})


@pytest.mark.parametrize("length", [CHUNK_SIZE, 3 * CHUNK_SIZE + 5])
def test_the_strongest_decays_stay_accurate_and_finite_in_float32(length):
    """At the bound everywhere, e^128 lies above the diagonal: outputs and gradients must not see it."""
    query, key, value, _ = inputs(length, torch.float32)
    log_decay = torch.full((2, 3, length, 5), MINIMUM_LOG_DECAY, requires_grad=True)
    tensors = [query, key, value, log_decay]
    outputs = mix_chunked(*tensors)
    expected = mix_sequentially(*(tensor.double() for tensor in tensors))
    torch.testing.assert_close(outputs.double(), expected, rtol=1e-4, atol=1e-4)
    for gradient in torch.autograd.grad(outputs.sum(), tensors):
        assert gradient.isfinite().all()
