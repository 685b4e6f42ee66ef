import pytest
import torch

from statesize.operators import Recurrence
from statesize.operators.stepped import DelayedRecurrence
from statesize.operators.transition import PairTransition


def test_dense_by_hand() -> None:
    A = torch.tensor([[2.0], [3.0], [5.0]])
    B = torch.tensor([[1.0], [7.0], [11.0]])
    C = torch.tensor([[13.0], [17.0], [19.0]])
    # T[2, 0] = C_2 A_2 A_1 B_0 = 19 · 5 · 3 · 1; A_0 meets no input.
    expected = [[13, 0, 0], [17 * 3, 17 * 7, 0], [19 * 5 * 3, 19 * 5 * 7, 19 * 11]]
    assert Recurrence(A, B, C).dense().tolist() == expected


def test_feed_through_adds_to_the_diagonal_only() -> None:
    ones = torch.ones(4, 1)
    plain, fed = Recurrence(ones, ones, ones).dense(), Recurrence(ones, ones, ones, D=torch.tensor([5.0])).dense()
    assert torch.equal(fed - plain, 5 * torch.eye(4))


@pytest.mark.parametrize("decays", [1, 4])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_diagonal_plus_rank_one_equals_its_full_transition(decays: int, scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    column, row, B, C = (scale * torch.randn(2, 6, 4, generator=g, dtype=torch.float64) for _ in range(4))
    decay = torch.rand(2, 6, decays, generator=g, dtype=torch.float64) - 0.3
    given = Recurrence.diagonal_plus_rank_one(decay, column, row, B, C)
    A = torch.diag_embed(decay.expand(2, 6, 4)) + column[..., :, None] * row[..., None, :]
    torch.testing.assert_close(given.A, A)
    torch.testing.assert_close(given.dense(), Recurrence(A, B, C).dense())
    norm = torch.linalg.matrix_norm(A, 2)
    assert bool((given.transition.gain() >= norm * (1 - 1e-12)).all())
    if decays == 1 and scale == 3.0:
        # Where one number decays all, the bound is the norm itself, but for a quarter of what is added.
        torch.testing.assert_close(given.transition.gain(), norm)


def test_delta_rule_equals_its_full_transition() -> None:
    g = torch.Generator().manual_seed(0)
    key, query = (torch.randn(2, 6, 3, generator=g, dtype=torch.float64) for _ in range(2))
    beta = torch.rand(2, 6, generator=g, dtype=torch.float64)
    decay = torch.rand(2, 6, 3, generator=g, dtype=torch.float64)
    delta = Recurrence.delta_rule(key, beta, query, decay)
    erase = torch.eye(3, dtype=torch.float64) - beta[..., None, None] * key[..., :, None] * key[..., None, :]
    A = erase @ torch.diag_embed(decay)
    torch.testing.assert_close(delta.A, A)
    torch.testing.assert_close(delta.dense(), Recurrence(A, beta[..., None] * key, query).dense())


def test_complex_modes_are_worth_two_states() -> None:
    modes, ones = torch.tensor([0.5 + 0.5j, 0.5 - 0.5j]).expand(5, 2), torch.ones(5, 2)
    pair, one = Recurrence(modes, ones, ones), Recurrence(modes[:, :1], ones[:, :1], 2 * ones[:, :1])
    assert (pair.state_size().tolist(), one.state_size().tolist()) == ([4] * 5, [2] * 5)
    torch.testing.assert_close(one.dense(), pair.dense())
    assert one.with_real_output().state_size().tolist() == [2] * 5


def test_complex_recurrence_is_the_real_part() -> None:
    g = torch.Generator().manual_seed(0)
    A, B, C = (torch.randn(6, 3, generator=g, dtype=torch.complex128) / 2 for _ in range(3))
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for i in range(6):
        for j in range(i + 1):
            expected[i, j] = (C[i] * A[j + 1 : i + 1].prod(0) * B[j]).sum().real
    torch.testing.assert_close(Recurrence(A, B, C).dense(), expected)
    torch.testing.assert_close(Recurrence(A, B, C).with_real_output().dense(), expected)


@pytest.mark.parametrize("wide", ["key", "beta", "query", "decay"])
def test_nothing_of_a_delta_rule_is_rounded_to_the_dtypes_of_some_of_its_parts(wide: str) -> None:
    g = torch.Generator().manual_seed(0)
    parts = {name: torch.rand(5, 3, generator=g) for name in ("key", "query", "decay")} | {"beta": torch.rand(5)}
    parts = {name: part.double() if name == wide else part.bfloat16() for name, part in parts.items()}
    exact = Recurrence.delta_rule(**{name: part.double() for name, part in parts.items()})
    found = Recurrence.delta_rule(**parts)
    assert torch.equal(found.dense(), exact.dense())
    assert torch.equal(found.B, exact.B)
    assert (found.dtype, found.to(torch.float32).dtype) == (torch.float64, torch.float32)


def test_parts_are_views_where_slices_choose_them() -> None:
    recurrence = Recurrence(torch.ones(1, 5, 4, 2), torch.ones(1, 5, 4, 2), torch.ones(1, 1, 4, 2))
    part = recurrence[0, 1:3]
    assert part.batch_shape == (2,)
    assert part.B.data_ptr() == recurrence.B[0, 1].data_ptr()
    assert part.C.data_ptr() == recurrence.C.data_ptr()
    assert recurrence[:0].apply(torch.ones(0, 5, 4, 0)).shape == (0, 5, 4, 0)


def delayed(form: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tail = {"scalar": (1,), "diagonal": (3,), "full": (3, 3)}[form]
    A = 0.8 * torch.randn(2, 3, 12, *tail, generator=generator, dtype=torch.float64)
    B, C = torch.randn(2, 2, 3, 12, 3, generator=generator, dtype=torch.float64)
    return {"A": A, "B": B, "C": C, "D": torch.randn(2, 3, 12, generator=generator, dtype=torch.float64)}


@pytest.mark.parametrize("form", ["scalar", "diagonal", "full"])
def test_delayed_outputs_read_the_state_before_its_update(form: str) -> None:
    operator = DelayedRecurrence(**delayed(form))
    A, B, C, D = delayed(form).values()
    inputs = torch.eye(12, dtype=torch.float64)
    state, rows = torch.zeros(2, 3, 3, 12, dtype=torch.float64), []
    for t in range(12):
        rows.append((C[..., t, None, :] @ state).squeeze(-2) + D[..., t, None] * inputs[t])
        moved = A[..., t, :, :] @ state if form == "full" else A[..., t, :, None] * state
        state = moved + B[..., t, :, None] * inputs[t]
    torch.testing.assert_close(operator.dense(), torch.stack(rows, -2))
    torch.testing.assert_close(operator.apply(inputs.expand(2, 3, 12, 12)), operator.dense())
    assert operator.state_size().tolist() == [3] * 12
    torch.testing.assert_close(operator.states(inputs.expand(2, 3, 12, 12), [12]).squeeze(-3), state)


@pytest.mark.parametrize("form", ["scalar", "diagonal"])
def test_a_delayed_diagonal_is_kept_as_pairs(form: str) -> None:
    parts = delayed(form)
    given = DelayedRecurrence(**parts).transition
    assert isinstance(given, PairTransition)
    same = DelayedRecurrence(**(parts | {"A": torch.diag_embed(parts["A"].expand(2, 3, 12, 3))})).transition
    torch.testing.assert_close(given.matrix(), same.matrix())
    torch.testing.assert_close(given.spaced(2).matrix(), same.spaced(2).matrix())
    rows = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(given.advance(5, rows.mT), same.advance(5, rows.mT))
