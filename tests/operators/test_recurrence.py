import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.operators import Recurrence


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


def test_a_delta_rule_is_diagonal_plus_rank_one() -> None:
    g = torch.Generator().manual_seed(0)
    key, query = (torch.randn(2, 6, 4, generator=g, dtype=torch.float64) for _ in range(2))
    beta, decay = (torch.rand(2, 6, 1, generator=g, dtype=torch.float64) for _ in range(2))
    rule = Recurrence.delta_rule(key, beta[..., 0], query, decay)
    same = Recurrence.diagonal_plus_rank_one(decay, -beta * key, key * decay, beta * key, query)
    torch.testing.assert_close(same.dense(), rule.dense())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decay": torch.ones(5, 2)}, "decay must have the length and state size of B"),
        ({"column": torch.ones(5, 1)}, "column must have the length and state size of B"),
        ({"row": torch.ones(4, 3)}, "row must have the length and state size of B"),
        ({"row": torch.full((5, 3), torch.nan)}, "row must be finite"),
        ({"column": torch.ones(5, 3, dtype=torch.int64)}, "column must"),
    ],
)
def test_diagonal_plus_rank_one_checks_its_input(changed: dict[str, torch.Tensor], message: str) -> None:
    given = {name: torch.ones(5, 3) for name in ("decay", "column", "row", "B", "C")}
    with pytest.raises(InputError, match=message):
        Recurrence.diagonal_plus_rank_one(**(given | changed))


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
    torch.testing.assert_close(
        delta.transition.gain() - torch.linalg.matrix_norm(A, 2), torch.zeros(2, 6).double(), rtol=0, atol=2
    )
    assert bool((delta.transition.gain() >= torch.linalg.matrix_norm(A, 2) - 1e-12).all())


def test_full_gain_bounds_the_spectral_norm() -> None:
    g = torch.Generator().manual_seed(0)
    A = torch.randn(20, 4, 4, generator=g, dtype=torch.float64)
    recurrence = Recurrence(A, torch.ones(20, 4).double(), torch.ones(20, 4).double())
    assert bool((recurrence.transition.gain() >= torch.linalg.matrix_norm(A, 2) - 1e-12).all())


def test_complex_modes_are_worth_two_states_unless_paired() -> None:
    A = torch.tensor([0.5 + 0.5j, 0.5 - 0.5j]).expand(5, 2)
    ones = torch.ones(5, 2)
    assert Recurrence(A, ones, ones).state_size().tolist() == [4] * 5
    assert Recurrence(A, ones, ones, conjugate_pairs=True).state_size().tolist() == [2] * 5


def test_modes_that_are_not_paired_are_refused() -> None:
    ones = torch.ones(5, 2)
    with pytest.raises(InputError, match="do not come in conjugate pairs"):
        Recurrence(torch.tensor([0.5 + 0.5j, 0.5 + 0.4j]).expand(5, 2), ones, ones, conjugate_pairs=True)


def test_complex_recurrence_is_the_real_part() -> None:
    g = torch.Generator().manual_seed(0)
    A, B, C = (torch.randn(6, 3, generator=g, dtype=torch.complex128) / 2 for _ in range(3))
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for i in range(6):
        for j in range(i + 1):
            expected[i, j] = (C[i] * A[j + 1 : i + 1].prod(0) * B[j]).sum().real
    torch.testing.assert_close(Recurrence(A, B, C).dense(), expected)
    torch.testing.assert_close(Recurrence(A, B, C).with_real_output().dense(), expected)


@pytest.mark.parametrize(
    ("A", "B", "C", "message"),
    [
        (torch.ones(4, 3), torch.ones(4, 2), torch.ones(4, 2), r"A must have shape .* got \(4, 3\)"),
        (torch.ones(5, 2), torch.ones(4, 2), torch.ones(4, 2), r"A must have shape"),
        (torch.ones(4, 2, 3), torch.ones(4, 2), torch.ones(4, 2), r"A must have shape \(..., 4, 2, 2\)"),
        (
            torch.ones(4, 2),
            torch.ones(4, 2),
            torch.ones(4, 3),
            r"same length and state size, got \(4, 2\) and \(4, 3\)",
        ),
        (torch.ones(4, 1), torch.ones(4), torch.ones(4), r"B must have shape \(..., L, n\), got \(4,\)"),
        (torch.ones(2, 4, 1), torch.ones(3, 4, 2), torch.ones(3, 4, 2), r"equal or 1, got A \(2,\), B \(3,\)"),
        (torch.ones(0, 1), torch.ones(0, 2), torch.ones(0, 2), r"at least one position"),
        (torch.ones(4, 1, dtype=torch.int64), torch.ones(4, 2), torch.ones(4, 2), r"dtype torch.int64"),
        ([[1.0]], torch.ones(4, 2), torch.ones(4, 2), r"A must be .* got list"),
        (
            torch.ones(4, 1),
            torch.ones(4, 2) * torch.nan,
            torch.ones(4, 2),
            r"B must be finite, got nan at index \(0, 0\)",
        ),
        (torch.full((4, 1), torch.inf), torch.ones(4, 2), torch.ones(4, 2), r"A must be finite, got inf"),
    ],
)
def test_bad_input_is_quoted(A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recurrence(A, B, C)


def test_feed_through_and_pairs_are_checked() -> None:
    ones = torch.ones(4, 2)
    with pytest.raises(InputError, match=r"D must have shape .* got \(3,\)"):
        Recurrence(ones, ones, ones, D=torch.ones(3))
    with pytest.raises(InputError, match="D must be a floating-point tensor"):
        Recurrence(ones, ones, ones, D=torch.ones(4, dtype=torch.complex64))
    with pytest.raises(InputError, match="conjugate_pairs=True is for complex"):
        Recurrence(ones, ones, ones, conjugate_pairs=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beta": torch.ones(3)}, r"beta must have shape \(..., 4\)"),
        ({"decay": torch.ones(4, 3)}, r"decay"),
        ({"query": torch.ones(4, 3)}, r"query must have the shape of key"),
        ({"key": torch.full((4, 2), torch.nan)}, r"key must be finite"),
        ({"key": torch.ones(4, 2, dtype=torch.complex64)}, r"key must be a floating-point tensor"),
    ],
)
def test_delta_rule_checks_its_input(changed: dict[str, torch.Tensor], message: str) -> None:
    given = {"key": torch.ones(4, 2), "beta": torch.ones(4), "query": torch.ones(4, 2), "decay": torch.ones(4)}
    with pytest.raises(InputError, match=message):
        Recurrence.delta_rule(**(given | changed))


def test_indexing_touches_batch_dimensions_only() -> None:
    recurrence = Recurrence(torch.ones(2, 4, 1), torch.ones(2, 4, 3), torch.ones(1, 4, 3))
    assert recurrence[1].batch_shape == ()
    assert recurrence[torch.tensor([1, 0, 1])].batch_shape == (3,)
    for bad, message in (
        ((0, 0), "2 indices for batch shape"),
        (2, "out of range"),
        (np.int64(2), "out of range"),
        (None, "indexed by integers"),
    ):
        with pytest.raises(InputError, match=message):
            recurrence[bad]


def test_mixed_dtypes_are_promoted() -> None:
    recurrence = Recurrence(torch.ones(4, 1, dtype=torch.float64), torch.ones(4, 2), torch.ones(4, 2))
    assert recurrence.dtype == torch.float64
    assert recurrence.to(torch.float32).dtype == torch.float32


@pytest.mark.parametrize("wide", ["key", "beta", "query", "decay"])
def test_nothing_of_a_delta_rule_is_rounded_to_the_dtypes_of_some_of_its_parts(wide: str) -> None:
    g = torch.Generator().manual_seed(0)
    parts = {name: torch.rand(5, 3, generator=g) for name in ("key", "query", "decay")} | {"beta": torch.rand(5)}
    parts = {name: part.double() if name == wide else part.bfloat16() for name, part in parts.items()}
    exact = Recurrence.delta_rule(**{name: part.double() for name, part in parts.items()})
    found = Recurrence.delta_rule(**parts)
    assert torch.equal(found.dense(), exact.dense())
    assert torch.equal(found.B, exact.B)


def test_what_overflows_in_a_narrower_dtype_is_refused() -> None:
    large = Recurrence(torch.ones(4, 1), torch.full((4, 2), 1e200, dtype=torch.float64), torch.ones(4, 2))
    with pytest.raises(InputError, match="B must be finite"):
        large.to(torch.float32)


def test_parts_are_views_where_slices_choose_them() -> None:
    recurrence = Recurrence(torch.ones(1, 5, 4, 2), torch.ones(1, 5, 4, 2), torch.ones(1, 1, 4, 2))
    part = recurrence[0, 1:3]
    assert part.batch_shape == (2,)
    assert part.B.data_ptr() == recurrence.B[0, 1].data_ptr()
    assert part.C.data_ptr() == recurrence.C.data_ptr()


def test_nothing_is_applied_to_nothing() -> None:
    recurrence = Recurrence(torch.ones(0, 20, 1), torch.ones(0, 20, 3), torch.ones(0, 20, 3))
    assert recurrence.apply(torch.ones(0, 20, 0)).shape == (0, 20, 0)
