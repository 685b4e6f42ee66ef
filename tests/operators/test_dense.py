import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.operators import Dense


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(3, 3), r"causal .* got 1 at index \(0, 1\); use matrix.tril\(\)"),
        (torch.ones(2, 3), r"shape \(..., L, L\), got \(2, 3\)"),
        (torch.ones(3), r"shape \(..., L, L\), got \(3,\)"),
        (torch.ones(0, 0), "at least one position"),
        (torch.eye(3, dtype=torch.int64), "dtype torch.int64"),
        (torch.eye(3, dtype=torch.complex64), "dtype torch.complex64"),
        (torch.diag(torch.tensor([1.0, torch.nan])), r"got nan at index \(1, 1\)"),
        ("T", "got str"),
    ],
)
def test_bad_input_is_quoted(matrix: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dense(matrix)


def test_state_is_the_whole_past() -> None:
    assert Dense(torch.eye(4)).state_size().tolist() == [0, 1, 2, 3]


def test_a_smaller_state_is_carried_along() -> None:
    operator = Dense(torch.eye(4).expand(2, 3, 4, 4), torch.tensor([0, 1, 2, 2]))
    assert operator.state_size().tolist() == [0, 1, 2, 2]
    assert operator[0, 1:].state_size().tolist() == [0, 1, 2, 2]
    assert operator.to(torch.float64).state_size().tolist() == [0, 1, 2, 2]
    for given in ([0, 1, 1], np.array([0, 1, 1])):
        assert Dense(torch.eye(3), given).state_size().tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([0, 1], "must hold 3 integers, got shape \\(2,\\)"),
        (5, "must hold 3 integers, got shape \\(\\)"),
        ([0.0, 1.0, 2.0], "dtype torch.float32"),
        ([0, 2, 2], "between 0 and i at each position i, got 2 at position 1"),
        ([0, -1, 2], "got -1 at position 1"),
    ],
)
def test_a_state_that_no_past_fills_is_refused(sizes: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dense(torch.eye(3), torch.tensor(sizes))


def test_what_is_printed_of_an_operator_says_its_shape():
    assert repr(Dense(torch.zeros(2, 3, 3))) == "Dense(length=3, batch_shape=(2,), dtype=torch.float32)"
