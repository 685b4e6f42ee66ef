import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.operators import Convolution


def test_dense_is_toeplitz() -> None:
    assert Convolution(torch.tensor([2.0, 3.0]), 3).dense().tolist() == [[2, 0, 0], [3, 2, 0], [0, 3, 2]]


def test_state_is_the_shift_register() -> None:
    assert Convolution(torch.ones(4), 6).state_size().tolist() == [3] * 6


def test_a_length_of_numpy() -> None:
    found = Convolution(torch.ones(2), np.int64(5))
    assert (type(found.length), found.dense().shape) == (int, (5, 5))


@pytest.mark.parametrize(
    ("kernel", "length", "message"),
    [
        (torch.tensor(1.0), 3, r"kernel must have shape \(..., K\)"),
        (torch.ones(0), 3, "at least one position"),
        (torch.ones(2), 0, "length must be an integer in 1 … 2147483647, got 0"),
        (torch.ones(2), 10**30, "got 1000000"),
        (torch.ones(2), 2.0, "got 2.0"),
        (torch.ones(2), True, "got True"),
        (torch.tensor([1.0, torch.inf]), 3, r"got inf at index \(1,\)"),
        (torch.ones(2, dtype=torch.int32), 3, "dtype torch.int32"),
    ],
)
def test_bad_input_is_quoted(kernel: torch.Tensor, length: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Convolution(kernel, length)
