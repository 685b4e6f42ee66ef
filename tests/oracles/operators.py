"""Random recurrences of every structure, and operators of every family that is known to be hard for an engine."""

import math

import torch
from oracles import draws
from torch import Tensor

from statesize.operators import Convolution, Dense, Operator, Recurrence, SoftmaxAttention

STRUCTURES = ("scalar", "diagonal", "full", "delta", "complex", "orthogonal")
FAMILIES = (*STRUCTURES, "marginal", "vanishing", "reset", "repeated", "constant", "zero", "rank-deficient", "graded")
FAMILIES += ("attention", "sharp attention", "flat attention", "sliding attention", "short convolution")
FAMILIES += ("long convolution", "modal convolution", "smooth convolution", "late convolution", "identity")


def random_recurrence(structure: str, seed: int, length: int, states: int, batch: tuple[int, ...] = ()) -> Recurrence:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.randn(*batch, *shape, generator=g, dtype=dtype)

    B, C = normal(length, states), normal(length, states)
    if structure == "scalar":
        return Recurrence(normal(length, 1).sigmoid(), B, C)
    if structure == "diagonal":
        return Recurrence((normal(length, states) + 1).sigmoid(), B, C)
    if structure == "full":
        return Recurrence(normal(length, states, states) / states**0.5, B, C)
    if structure == "delta":
        key = torch.nn.functional.normalize(B, dim=-1)
        return Recurrence.delta_rule(key, normal(length).sigmoid(), C, normal(length, states).sigmoid() ** 0.25)
    if structure == "complex":
        modes = torch.polar(normal(length, states).sigmoid(), normal(length, states))
        return Recurrence(modes, B, C)
    return Recurrence(torch.linalg.qr(normal(length, states, states)).Q, B, C)


def random_operator(family: str, seed: int, length: int) -> Operator:
    """One unbatched operator; the same for the same arguments."""
    g = torch.Generator().manual_seed(seed)
    states = int(torch.randint(1, 13, (), generator=g))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    if family in STRUCTURES:
        return random_recurrence(family, seed, length, states)
    recurrences = {
        "marginal": lambda: torch.ones(length, 1, dtype=torch.float64),
        "vanishing": lambda: torch.exp(-5 * normal(length, states).abs()),
        "reset": lambda: (torch.rand(length, 1, generator=g, dtype=torch.float64) > 0.1).double(),
        "repeated": lambda: torch.full((length, states), 0.9, dtype=torch.float64),
    }
    if family in recurrences:
        B, C = normal(length, states), normal(length, states)
        if family == "repeated":
            B, C = B[:1].expand(length, -1), C[:1].expand(length, -1)
        return Recurrence(recurrences[family](), B, C)
    if "attention" in family:
        factor = {"sharp attention": 5.0, "flat attention": 0.02}.get(family, 0.35)
        window = max(1, length // 3) if family == "sliding attention" else None
        return SoftmaxAttention(normal(length, 8), normal(length, 8), factor, window)
    lag = torch.arange(length, dtype=torch.float64)
    kernels = {
        # Noise: blocks of full rank.
        "short convolution": lambda: draws.normal(min(length, 6), seed=seed),
        "long convolution": lambda: draws.normal(length, seed=seed) * 0.99 ** (seed % 5 * lag),
        "modal convolution": lambda: modes(seed, states, lag),
        # Of low numerical rank, but no sum of a few exponentials.
        "smooth convolution": lambda: torch.exp(-(((lag / length - 0.6) / 0.08) ** 2)),
        # A single 1 at the far end: H_i is a permutation and zeros; no state that decays or lasts makes it.
        "late convolution": lambda: (lag == length - 1).double(),
    }
    if family in kernels:
        return Convolution(kernels[family](), length)
    matrices = {
        "constant": lambda: torch.ones(length, length, dtype=torch.float64),
        "zero": lambda: torch.zeros(length, length, dtype=torch.float64),
        "identity": lambda: torch.eye(length, dtype=torch.float64),
        "rank-deficient": lambda: normal(length, states) @ normal(states, length),
        "graded": lambda: (normal(length, states) * torch.logspace(0, -9, states)) @ normal(states, length),
    }
    return Dense(matrices[family]().tril())


def scaled(operator: Operator, factor: float) -> Operator:
    """The same operator times a number."""
    if isinstance(operator, Recurrence):
        return Recurrence(operator.A, operator.B * factor, operator.C)
    if isinstance(operator, Convolution):
        return Convolution(operator.kernel * factor, operator.length)
    return Dense(operator.dense() * factor)


def modes(seed: int, count: int, lag: Tensor) -> Tensor:
    """A sum of damped oscillations, some of them fast and some slow."""
    g = torch.Generator().manual_seed(seed)
    decay = 10 ** (-2 * torch.rand(count, 1, generator=g, dtype=torch.float64))
    angle = math.pi * torch.rand(count, 1, generator=g, dtype=torch.float64)
    weight = torch.randn(count, 1, generator=g, dtype=torch.float64)
    return (weight * torch.exp(-decay * lag) * torch.cos(angle * lag)).sum(-2)
