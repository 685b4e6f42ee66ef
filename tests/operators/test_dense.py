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
