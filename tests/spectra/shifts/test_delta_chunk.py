import pytest
import torch

from statesize.operators.transition import DeltaTransition
from statesize.spectra.border_maps import delta_chunks


@pytest.mark.parametrize("batch", [(), (2, 3)])
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("strength", [0.3, 0.0, 1e3])
def test_agrees_with_stepping(batch: tuple[int, ...], diagonal: bool, strength: float) -> None:
    g = torch.Generator().manual_seed(0)
    b, n = 20, 5
    key, C = (torch.randn(*batch, b, n, generator=g, dtype=torch.float64) for _ in range(2))
    key = torch.nn.functional.normalize(key, dim=-1)
    # A decay of exactly 0 forgets all; one of 1e-200 underflows when taken twice.
    decay = torch.rand(*batch, b, n if diagonal else 1, generator=g, dtype=torch.float64)
    decay[..., 3, :], decay[..., 5:7, :] = 0, 1e-200
    beta = strength * torch.rand(*batch, b, 1, generator=g, dtype=torch.float64)
    transition, B = DeltaTransition(key, beta, decay), beta * key
    found = delta_chunks(key, decay, B, C)
    state = torch.eye(n, dtype=torch.float64).expand(*batch, n, n)
    rows = []
    for t in range(b):
        state = transition.advance(t, state)
        row = (C[..., t, None, :] @ state).squeeze(-2)
        rows.append(torch.nn.functional.pad(row, (0, b - t)))
        state = torch.cat([state, B[..., t, :, None]], -1)
    stepped = torch.stack(rows, -2)
    expected = stepped[..., :n], stepped[..., n:], state[..., n:], state[..., :n]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13 * (1 + float(theirs.abs().max())))
