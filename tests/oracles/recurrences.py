"""Random recurrences of every structure, for tests that hold for all of them."""

import torch

from statesize.operators import Recurrence

STRUCTURES = ("scalar", "diagonal", "full", "delta", "complex", "orthogonal")


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
