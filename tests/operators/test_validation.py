import pytest
import torch

from statesize.errors import InputError
from statesize.operators.validation import all_finite, require_finite

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("entries", "finite"),
    [
        ([1.0, -2.0], True),
        ([3e38, 3e38], True),
        ([NAN, 1.0], False),
        ([1.0, NAN], False),
        ([0.0, INFINITY], False),
        ([-INFINITY, 0.0], False),
        ([1 + 2j, 0j], True),
        ([0j, complex(0, NAN)], False),
        ([complex(-INFINITY, 0), 0j], False),
        ([], True),
    ],
)
def test_finite_or_not(entries, finite):
    for tensor in (torch.tensor(entries), torch.tensor(entries).expand(3, -1).requires_grad_()):
        assert all_finite(tensor) == finite


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.complex128])
def test_the_first_entry_that_is_not(dtype):
    tensor = torch.zeros(2, 3, dtype=dtype)
    require_finite("A", tensor)
    tensor[1, 0] = NAN
    tensor[1, 2] = INFINITY
    with pytest.raises(InputError, match=r"^A must be finite, got \(?nan.* at index \(1, 0\) of shape \(2, 3\)$"):
        require_finite("A", tensor)
