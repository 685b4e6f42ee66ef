"""Convolution kernels of the kinds that the convolution engine tells apart."""

import math

import torch
from torch import Tensor


def irregular(seed: int, taps: int, batch: tuple[int, ...] = ()) -> Tensor:
    """Noise: blocks of full rank."""
    return torch.randn(*batch, taps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def modes(seed: int, count: int, length: int, batch: tuple[int, ...] = ()) -> Tensor:
    """A sum of damped oscillations, some of them fast and some slow."""
    g = torch.Generator().manual_seed(seed)
    decay = 10 ** (-2 * torch.rand(*batch, count, 1, generator=g, dtype=torch.float64))
    angle = math.pi * torch.rand(*batch, count, 1, generator=g, dtype=torch.float64)
    weight = torch.randn(*batch, count, 1, generator=g, dtype=torch.float64)
    lag = torch.arange(length, dtype=torch.float64)
    return (weight * torch.exp(-decay * lag) * torch.cos(angle * lag)).sum(-2)


def late(taps: int) -> Tensor:
    """A single 1 at the far end: H_i is a permutation and zeros; no state that decays or lasts makes it."""
    kernel = torch.zeros(taps, dtype=torch.float64)
    kernel[-1] = 1
    return kernel


def bump(taps: int) -> Tensor:
    """A smooth bump: of low numerical rank, but no sum of a few exponentials."""
    time = torch.arange(taps, dtype=torch.float64) / taps
    return torch.exp(-(((time - 0.6) / 0.08) ** 2))
