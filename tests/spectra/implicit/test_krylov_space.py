"""What a subspace says about a matrix, against all of its eigenvalues."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.draws import normal
from torch import Tensor

from statesize.spectra.implicit.entropy_estimate import entropy_parts
from statesize.spectra.implicit.krylov_space import KrylovSpace


def gram(n: int, seed: int, decay: float = 0.2) -> Tensor:
    Q = torch.linalg.qr(normal(n, n, seed=seed)).Q
    return (Q * torch.exp(-2 * decay * torch.arange(n))) @ Q.mT


def frame(p: int, n: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(n, p, seed=seed)).Q.mT


def of_root(A: Tensor, function) -> Tensor:
    theta, V = torch.linalg.eigh(A)
    return (V * function(theta.clamp(min=0).sqrt())) @ V.mT


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 5), st.sampled_from([0.0, 0.05, 1.0]))
def test_quadratic_forms_lie_between_their_bounds(seed: int, n: int, p: int, decay: float) -> None:
    """Whatever vectors were begun with, at first and in place of others."""
    A, p = gram(n, seed, decay), min(p, n)
    space = KrylovSpace(n, n)
    z = frame(p, n, seed)
    draws = [(z, space.begin(z))]
    for step in range(4):
        if space.pending.shape[0]:
            space.extend(space.pending @ A)
        if step == 1:
            z = frame(p, n, seed + 1)
            draws.append((z, space.begin(z)))
    held = space.compression()
    for function in (
        lambda s: s,
        torch.square,
        lambda s: entropy_parts(s, 0.3)[0],
        lambda s: entropy_parts(s, -1.0)[1],
    ):
        exact = of_root(A, function)
        for z, coordinates in draws:
            k = coordinates.shape[1]
            value = ((z @ exact) * z).sum(-1)
            low = (coordinates @ held.nystrom_vectors[:k]).square() @ function(held.nystrom)
            high = (coordinates @ held.ritz_vectors[:k]).square() @ function(held.ritz)
            assert (low <= value + 1e-6).all()
            assert (value <= high + 1e-6).all()
    sigma = torch.linalg.eigvalsh(A).clamp(min=0).sqrt().flip(0)
    low = held.nystrom.flip(0)
    assert (low <= sigma[: low.shape[0]] + 1e-6).all()


def test_products_that_lead_nowhere_are_dropped() -> None:
    """A of rank 3, and A = 0."""
    for rank in (3, 0):
        A = gram(20, 1)
        theta, V = torch.linalg.eigh(A)
        A = (V[:, 20 - rank :] * theta[20 - rank :]) @ V[:, 20 - rank :].mT
        space = KrylovSpace(20, 20)
        space.begin(frame(4, 20, 0))
        while space.pending.shape[0]:
            space.extend(space.pending @ A)
        assert space.pending.shape[0] == 0
        assert space.size <= 4 + rank
        held = space.compression()
        torch.testing.assert_close(held.ritz.flip(0)[:rank].square(), theta.flip(0)[:rank], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("part", "kept"), [(1e-12, 1), (1e-15, 0)])
def test_parts_outside_of_the_space_are_kept_above_round_off(part: float, kept: int) -> None:
    """Relative to A, of a product."""
    eye = torch.eye(4, dtype=torch.float64)
    vector = eye[:1] + part * eye[1:2]
    for scale in (1e-6, 1.0, 1e6):
        space = KrylovSpace(4, 4)
        space.begin(eye[:1])
        space.extend(scale * vector)
        assert space.pending.shape[0] == kept


@pytest.mark.parametrize("capacity", [8, 11, 40])
def test_there_is_room_until_there_is_not(capacity: int) -> None:
    A = gram(40, 2, 0.0) + torch.diag(torch.arange(40.0, dtype=torch.float64))
    space = KrylovSpace(40, capacity)
    space.begin(frame(3, 40, 0))
    while space.pending.shape[0] and space.has_room(1, space.pending.shape[0]):
        space.extend(space.pending @ A)
    assert space.size + space.pending.shape[0] <= capacity
    assert space.size + 6 > capacity or space.size == 40
