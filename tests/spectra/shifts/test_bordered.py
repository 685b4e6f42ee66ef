import pytest
import torch
from oracles.recurrences import STRUCTURES, random_recurrence

from statesize.operators import Recurrence
from statesize.spectra.shifts.chunked import recurrence_chunks


@pytest.mark.parametrize("structure", STRUCTURES)
def test_inertia_is_exact_within_the_stated_distance(structure: str) -> None:
    # Shifts on the singular values themselves, small ones included, where round-off decides on which side they fall.
    recurrence = random_recurrence(structure, 0, 40, 9)
    if structure in ("diagonal", "full"):
        # Singular values over nine decades.
        recurrence = Recurrence(recurrence.A, recurrence.B * torch.logspace(0, -9, 9), recurrence.C)
    chunks = recurrence_chunks(recurrence, 8)
    group = torch.arange(chunks.core.shape[0]).repeat_interleave(8)
    offset = torch.arange(8).repeat(chunks.core.shape[0])
    values = chunks.spectra(group, offset).reshape(-1, 8, 8 + chunks.core.shape[-1])
    roundoff = 1e-15 * float(values.max())
    for position in range(0, 8, 3):
        for rank in range(9):
            for beside in (0, 1e-10, -1e-10, 1e-8, -1e-8, 1e-6, -1e-6):
                shift = (values[:, position, rank] * (1 + beside)).clamp(min=1e-9 * float(values.max()))
                found, distance = chunks.counts(shift)
                slack = (distance + roundoff)[..., None]
                assert bool((found >= (values > shift[:, None, None] + slack).sum(-1)).all())
                assert bool((found <= (values > shift[:, None, None] - slack).sum(-1)).all())


def test_norms_bounds_and_quotients_enclose_the_singular_values() -> None:
    for structure in STRUCTURES:
        chunks = recurrence_chunks(random_recurrence(structure, 1, 40, 5), 8)
        group = torch.arange(5).repeat_interleave(8)
        values = chunks.spectra(group, torch.arange(8).repeat(5)).reshape(5, 8, -1)
        torch.testing.assert_close(chunks.squared_norms(), values.square().sum(-1))
        assert bool((chunks.norm_bound()[:, None] >= values[..., 0] * (1 - 1e-12)).all())
        quotients, _ = chunks.largest()
        assert bool((quotients <= values[..., 0] * (1 + 1e-12)).all())
        assert float((quotients / values[..., 0].clamp(min=1e-300))[values[..., 0] > 0].min()) > 0.8


def test_log_determinants() -> None:
    for structure in STRUCTURES:
        chunks = recurrence_chunks(random_recurrence(structure, 2, 24, 4), 8)
        group = torch.arange(3).repeat_interleave(8)
        values = chunks.spectra(group, torch.arange(8).repeat(3)).reshape(3, 8, -1)
        # Squares of values are up to 4e10 times that of the smallest shift, and so is their round-off.
        for s, close in ((10.0, 1e-8), (1e-1, 1e-8), (1e-4, 1e-7)):
            found = chunks.log_determinants(torch.full((3,), s, dtype=torch.float64))
            torch.testing.assert_close(found, torch.log1p((values / s) ** 2).sum(-1), rtol=close, atol=close)
