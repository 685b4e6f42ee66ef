"""The short convolution against its definition, and its step form."""

import pytest
import torch

from statesize.lab.mixers.mixer import ShortConvolution


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 3, 9])
def test_it_is_the_causal_depthwise_convolution(size, length):
    convolution = ShortConvolution(3, size).double()
    inputs = torch.randn(2, length, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros_like(inputs)
    for t in range(length):
        for lag in range(min(size, t + 1)):
            expected[:, t] += convolution.weight[:, size - 1 - lag].detach() * inputs[:, t - lag]
    torch.testing.assert_close(convolution(inputs), expected)
    cache, outputs = convolution.initial_cache(2), []
    for t in range(length):
        output, cache = convolution.step(inputs[:, t], cache)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, 1), expected)
