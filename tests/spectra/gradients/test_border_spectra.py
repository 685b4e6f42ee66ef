import torch
from oracles.recurrences import random_recurrence

from statesize.operators import Recurrence
from statesize.spectra.border_maps import border_maps, chosen_borders
from statesize.spectra.gradients import border_singular_values


def at_borders(recurrence: Recurrence, positions: list[int]) -> torch.Tensor:
    real = recurrence.with_real_output()
    borders = chosen_borders(real, positions)
    return border_singular_values(border_maps(real, borders), torch.tensor([borders.index(i) for i in positions]))


def test_any_sum_of_singular_values_has_the_gradient_of_the_definition() -> None:
    recurrence = random_recurrence("delta", 2, 50, 4)
    B = recurrence.B.clone().requires_grad_()
    full = Recurrence(recurrence.A, B, recurrence.C)
    weights = torch.tensor([1.0, -2.0, 3.0, 5.0], dtype=torch.float64)
    (found,) = torch.autograd.grad((at_borders(full, [20, 30, 20]) * weights).sum(), B)
    matrix = full.dense()
    exact = sum((torch.linalg.svdvals(matrix[i:, :i])[:4] * weights).sum() for i in (20, 30, 20))
    torch.testing.assert_close(found, torch.autograd.grad(exact, B)[0], rtol=1e-9, atol=1e-11)


def test_small_singular_values_keep_their_gradient() -> None:
    # σ over 9 decades, where the eigenvalues of a product of Gramians would have lost the last one.
    decay = torch.tensor([0.9, 0.8, 0.7, 0.6], dtype=torch.float64).expand(24, 4)
    g = torch.Generator().manual_seed(0)
    strength = torch.logspace(0, -9, 4, dtype=torch.float64)
    B = (torch.randn(24, 4, generator=g, dtype=torch.float64) * strength).requires_grad_()
    recurrence = Recurrence(decay, B, torch.randn(24, 4, generator=g, dtype=torch.float64))
    values = at_borders(recurrence, [12])[0]
    smallest = float((values[3] / values[0]).detach())
    assert 0 < smallest < 1e-8
    (found,) = torch.autograd.grad(values[3], B)
    (exact,) = torch.autograd.grad(torch.linalg.svdvals(recurrence.dense()[12:, :12])[3], B)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6 * float(exact.abs().max()))
