"""Recurrences that are computed in log-space, as minGRU and minLSTM are, have the derivative of their step form."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from statesize.operators import Derivative

WIDTH = 4


class MinGRU(nn.Module):
    """h_t = (1 − z_t) h_{t−1} + z_t g(v_t), as a scan of logarithms (Feng et al. 2024, after Heinsen 2023)."""

    def __init__(self, *, in_logarithms):
        super().__init__()
        self.project, self.in_logarithms = nn.Linear(WIDTH, 2 * WIDTH), in_logarithms

    def forward(self, hidden):
        values, gates = self.project(hidden).chunk(2, -1)
        if self.in_logarithms:
            small = -functional.softplus(-values)
            entering = torch.where(values >= 0, (functional.relu(values) + 0.5).log(), small)
            kept = -functional.softplus(gates).cumsum(1)
            return (kept + (entering - functional.softplus(-gates) - kept).logcumsumexp(1)).exp()
        entering, rates = torch.where(values >= 0, values + 0.5, values.sigmoid()), gates.sigmoid()
        state, outputs = torch.zeros_like(hidden[:, 0]), []
        for at in range(hidden.shape[1]):
            state = (1 - rates[:, at]) * state + rates[:, at] * entering[:, at]
            outputs.append(state)
        return torch.stack(outputs, 1)


def pair(seed):
    torch.manual_seed(seed)
    logarithms, steps = MinGRU(in_logarithms=True), MinGRU(in_logarithms=False)
    steps.load_state_dict(logarithms.state_dict())
    return logarithms, steps


@pytest.mark.parametrize("length", [9, 40])
@pytest.mark.parametrize("seed", range(3))
def test_products_of_a_scan_in_log_space_are_those_of_its_steps(seed, length):
    point = torch.randn(length, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    vectors = torch.randn(5, length * WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scan, steps = (Derivative(layer.double(), point[None]).jacobian(0, length, 0) for layer in pair(seed))
    for product in ("forward", "adjoint", "gram"):
        one, other = (getattr(jacobian, product)(vectors) for jacobian in (scan, steps))
        assert (one - other).abs().max() < 1e-12 * other.abs().max()
