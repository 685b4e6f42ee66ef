import itertools

import pytest
import torch
from oracles.recurrences import STRUCTURES, random_recurrence

from statesize.operators import Recurrence
from statesize.spectra.border_maps import border_maps, chosen_borders


def stepped(real: Recurrence, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One chunk, one step at a time."""
    n = real.B.shape[-1]
    state = torch.eye(n, dtype=real.B.dtype).expand(*real.batch_shape, n, n)
    rows = []
    for t in range(first, last):
        state = real.transition.advance(t, state)
        rows.append((real.C[..., t, None, :] @ state[..., :n]).squeeze(-2))
        state = torch.cat([state, real.B[..., t, :, None].expand(*real.batch_shape, n, 1)], -1)
    return torch.stack(rows, -2), state[..., n:], state[..., :n]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_chunk_is_what_its_steps_make(structure: str) -> None:
    real = random_recurrence(structure, 0, 23, 4, batch=(2, 1)).with_real_output()
    borders = [0, 1, 9, 12, 23]
    maps = border_maps(real, borders)
    for k, (first, last) in enumerate(itertools.pairwise(borders)):
        observed, arriving, passed = stepped(real, first, last)
        width = last - first
        torch.testing.assert_close(maps.observability[..., k, :width, :], observed)
        torch.testing.assert_close(maps.reachability[..., k, :, :width], arriving)
        torch.testing.assert_close(maps.transition[..., k, :, :], passed)
        assert not bool(maps.observability[..., k, width:, :].any())
        assert not bool(maps.reachability[..., k, :, width:].any())


@pytest.mark.parametrize("width", [3, 12, 50])
def test_decays_of_the_delta_rule_may_be_zero_negative_and_tiny(width: int) -> None:
    g = torch.Generator().manual_seed(0)
    key, query = (torch.randn(width, 3, generator=g, dtype=torch.float64) / 2 for _ in range(2))
    decay = torch.rand(width, 3, generator=g, dtype=torch.float64)
    decay[4::9], decay[5::9, 1], decay[7::9], decay[8::9, 0] = 0, -0.5, 1e-200, 1e-200
    real = Recurrence.delta_rule(key, torch.rand(width, generator=g, dtype=torch.float64), query, decay)
    maps = border_maps(real, [0, width])
    observed, arriving, passed = stepped(real, 0, width)
    torch.testing.assert_close(maps.observability[0, :width], observed)
    torch.testing.assert_close(maps.reachability[0, :, :width], arriving)
    torch.testing.assert_close(maps.transition[0], passed)


@pytest.mark.parametrize(("structure", "widest"), [("diagonal", 128), ("full", 32), ("delta", 64)])
def test_borders_hold_every_position_and_keep_chunks_narrow(structure: str, widest: int) -> None:
    real = random_recurrence(structure, 0, 300, 2)
    borders = chosen_borders(real, [299, 7, 7, 8])
    assert borders == sorted(set(borders))
    assert {0, 7, 8, 299, 300} <= set(borders)
    assert max(last - first for first, last in itertools.pairwise(borders)) <= widest
