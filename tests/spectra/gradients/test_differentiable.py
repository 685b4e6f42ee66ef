from collections.abc import Callable

import pytest
import torch
from oracles.draws import normal
from oracles.operators import FAMILIES, random_operator

import statesize as ss
from statesize.spectra.border_maps import border_maps, chosen_borders
from statesize.spectra.gradients import border_singular_values

Build = Callable[..., ss.Operator]


# Of decays, inputs and outputs, (..., L, n) each, none of them between its bounds.
BUILDS: dict[str, Build] = {
    "scalar": lambda a, B, C: ss.Recurrence(a[..., :1].sigmoid(), B, C),
    "diagonal": lambda a, B, C: ss.Recurrence(a.sigmoid(), B, C),
    "full": lambda a, B, C: ss.Recurrence(torch.diag_embed(a.sigmoid()) - 0.3 * a[..., None] * B[..., None, :], B, C),
    "delta": lambda a, B, C: ss.Recurrence.delta_rule(B / 2, a[..., 0].sigmoid(), C, a[..., 1].sigmoid()),
    "gated delta": lambda a, B, C: ss.Recurrence.delta_rule(B / 2, a[..., 0].sigmoid(), C, (a + 1).sigmoid()),
    "complex": lambda a, B, C: ss.Recurrence(torch.polar(a.sigmoid(), B), B + 0j, torch.complex(C, a)),
    "dense": lambda a, B, C: ss.Dense((B @ C.mT + a @ B.mT).tril()),
    "attention": lambda a, B, C: ss.SoftmaxAttention(a + B, C, 0.7),
    "sliding": lambda a, B, C: ss.SoftmaxAttention(a + B, C, 0.7, window=4),
    "convolution": lambda a, B, C: ss.Convolution((a + B * C).flatten(-2)[..., :7], length=9),
}


def by_definition(operator: ss.Operator, positions: list[int], floor: float = 1e-10) -> torch.Tensor:
    """The entropy of svdvals, differentiated by autograd; what lies below the floor counts as 0."""
    T, found = operator.dense(), []
    for i in positions:
        sigma = torch.linalg.svdvals(T[..., i:, :i])
        kept = torch.where(sigma > floor * sigma[..., :1], sigma, 0)
        found.append(ss.metrics.entropy_ess(kept))
    return torch.stack(found, -1)


def gradients(total: torch.Tensor, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(total, tensors, retain_graph=True, allow_unused=True, materialize_grads=True))


def assert_same_gradients(
    found: torch.Tensor, exact: torch.Tensor, tensors: list[torch.Tensor], rtol: float = 1e-6, atol: float = 1e-8
) -> None:
    for mine, plain in zip(gradients(found, tensors), gradients(exact, tensors), strict=True):
        torch.testing.assert_close(mine, plain, rtol=rtol, atol=atol * max(1.0, float(plain.abs().max())))


def assert_same(operator: ss.Operator, positions: list[int], tensors: list[torch.Tensor]) -> None:
    found, exact = ss.metrics.differentiable_entropy(operator, positions), by_definition(operator, positions)
    torch.testing.assert_close(found, exact)
    assert_same_gradients(found.sum(), exact.sum(), tensors)


@pytest.mark.parametrize("build", BUILDS)
def test_values_and_gradients_are_those_of_the_definition(build: str) -> None:
    tensors = [normal(2, 3, 45, 4, seed=seed).requires_grad_() for seed in range(3)]
    positions = [30, 2, 17, 17] if build != "convolution" else [3, 2, 7, 7]
    operator = BUILDS[build](*tensors)
    found, exact = ss.metrics.differentiable_entropy(operator, positions), by_definition(operator, positions)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=0)
    measured = ss.measure(operator, positions=positions, engine="dense").entropy
    torch.testing.assert_close(found, measured, rtol=1e-7, atol=0)
    weights = normal(*found.shape, seed=5)
    assert_same_gradients((weights * found).sum(), (weights * exact).sum(), tensors, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_hard_families_have_the_values_of_measure(family: str) -> None:
    for seed, length in ((0, 2), (1, 37), (2, 150)):
        operator = random_operator(family, seed, length)
        measured = ss.measure(operator, positions=9, engine="dense")
        found = ss.metrics.differentiable_entropy(operator, 9)
        torch.testing.assert_close(found, measured.entropy, rtol=1e-7, atol=1e-12)


def test_equal_pairs_have_the_gradient_of_the_definition() -> None:
    # Two copies of one recurrence take turns, one at even and one at odd steps: all singular values come twice.
    B, C, a = (normal(20, 2, seed=seed) for seed in range(3))
    a.requires_grad_()
    zero = torch.zeros(20, 2, dtype=torch.float64)
    interleaved = [torch.stack([torch.cat([x, zero], -1), torch.cat([zero, x], -1)], 1).flatten(0, 1) for x in (B, C)]
    decay = torch.stack([a.sigmoid().repeat(1, 2), torch.ones(20, 4, dtype=torch.float64)], 1).flatten(0, 1)
    operator = ss.Recurrence(decay, *interleaved)
    values = ss.metrics.hankel_singular_values(operator, [20])[0]
    torch.testing.assert_close(values[0::2], values[1::2])
    assert_same(operator, [20], [a])


@pytest.mark.parametrize("build", ["diagonal", "full", "gated delta"])
def test_rank_deficiency_pulls_at_nothing(build: str) -> None:
    # A state that is never read, and one that copies another: ranks 2 of 4, noise of 1e-16 beside it.
    tensors = [normal(30, 4, seed=seed) for seed in range(3)]
    tensors[2][:, 3] = 0
    if build == "diagonal":
        for part in tensors:
            part[:, 1] = part[:, 0]
    tensors = [part.requires_grad_() for part in tensors]
    assert_same(BUILDS[build](*tensors), [1, 8, 15, 22, 29], tensors)


def test_a_zero_entry_leaves_the_others_alone() -> None:
    B = normal(2, 12, 3, seed=0)
    B[0] = 0
    B.requires_grad_()
    ess = ss.metrics.differentiable_entropy(
        BUILDS["diagonal"](normal(2, 12, 3, seed=1), B, normal(2, 12, 3, seed=2)), 4
    )
    (gradient,) = torch.autograd.grad(ess.sum(), B)
    assert bool(torch.isfinite(gradient).all())
    assert [bool(part.any()) for part in (ess[0], gradient[0], gradient[1])] == [False, False, True]


@pytest.mark.parametrize("build", ["diagonal", "gated delta"])
def test_resets_have_the_gradient_of_the_definition(build: str) -> None:
    a, B, C = (normal(20, 3, seed=seed) for seed in range(3))
    a[9] = -torch.inf
    tensors = [a.sigmoid().requires_grad_(), B.requires_grad_()]
    if build == "diagonal":
        operator = ss.Recurrence(*tensors, C)
    else:
        operator = ss.Recurrence.delta_rule(B, torch.full((20,), 0.5, dtype=torch.float64), C, tensors[0])
    assert_same(operator, [5, 9, 10, 14], tensors)


@pytest.mark.parametrize("build", ["diagonal", "dense"])
def test_positions(build: str) -> None:
    operator = BUILDS[build](*(normal(3, 8, 2, seed=seed) for seed in range(3)))
    every = ss.metrics.differentiable_entropy(operator)
    assert every.shape == (3, 7)
    for positions, places in ((3, [1, 3, 5]), ([5, 2, 5], [4, 1, 4]), ([], [])):
        torch.testing.assert_close(ss.metrics.differentiable_entropy(operator, positions), every[:, places])


def test_overflow_is_an_error() -> None:
    huge = torch.full((8, 2), 1e200, dtype=torch.float64)
    growing = ss.Recurrence(torch.full((400, 1), 1e3), torch.ones(400, 2), torch.ones(400, 2))
    for operator in (ss.SoftmaxAttention(huge, huge, 1.0), growing):
        with pytest.raises(ss.errors.InputError):
            ss.metrics.differentiable_entropy(operator, 3)


def test_second_derivatives_are_refused() -> None:
    a = normal(12, 2, seed=0).requires_grad_()
    ess = ss.metrics.differentiable_entropy(BUILDS["diagonal"](a, normal(12, 2, seed=1), normal(12, 2, seed=2)), [6])
    (gradient,) = torch.autograd.grad(ess.sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def at_borders(recurrence: ss.Recurrence, positions: list[int]) -> torch.Tensor:
    real = recurrence.with_real_output()
    borders = chosen_borders(real, positions)
    return border_singular_values(border_maps(real, borders), torch.tensor([borders.index(i) for i in positions]))


def test_small_singular_values_keep_their_gradient() -> None:
    # σ over 9 decades, where the eigenvalues of a product of Gramians would have lost the last one.
    decay = torch.tensor([0.9, 0.8, 0.7, 0.6], dtype=torch.float64).expand(24, 4)
    B, C = normal(2, 24, 4, seed=0)
    B = (B * torch.logspace(0, -9, 4, dtype=torch.float64)).requires_grad_()
    recurrence = ss.Recurrence(decay, B, C)
    values = at_borders(recurrence, [12])[0]
    smallest = float((values[3] / values[0]).detach())
    assert 0 < smallest < 1e-8
    (found,) = torch.autograd.grad(values[3], B)
    (exact,) = torch.autograd.grad(torch.linalg.svdvals(recurrence.dense()[12:, :12])[3], B)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6 * float(exact.abs().max()))
