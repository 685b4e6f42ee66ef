from fractions import Fraction

import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.operators.validation import all_finite, real_number, require_finite, whole_number

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


@pytest.mark.parametrize(
    ("value", "whole", "real"),
    [
        (2, 2, 2.0),
        (np.int64(2), 2, 2.0),
        (torch.tensor(2), 2, 2.0),
        (Fraction(1, 2), None, 0.5),
        (np.array(0.5), None, 0.5),
        (torch.tensor(0.5, requires_grad=True), None, 0.5),
        (True, None, None),
        (np.bool_(True), None, None),
        (torch.tensor(True), None, None),
        (np.complex128(2), None, None),
        (torch.tensor(2j), None, None),
        (torch.empty((), device="meta"), None, None),
        (torch.empty((), device="meta", dtype=torch.int64), None, None),
        (10**400, 10**400, None),
        (NAN, None, None),
        ("2", None, None),
        (torch.tensor([2.0]), None, None),
    ],
    ids=repr,
)
def test_numbers_of_any_library(value, whole, real):
    assert whole_number(value) == whole
    assert real_number(value) == real
