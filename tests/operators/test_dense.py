"""Operators that are held as T itself, and convolutions."""

import numpy as np
import torch

from statesize.operators import Convolution, Dense


def test_state_is_the_whole_past() -> None:
    assert Dense(torch.eye(4)).state_size().tolist() == [0, 1, 2, 3]


def test_a_smaller_state_is_carried_along() -> None:
    operator = Dense(torch.eye(4).expand(2, 3, 4, 4), torch.tensor([2, 2, 2, 2]))
    for one in (operator, operator[0, 1:], operator.to(torch.float64)):
        assert one.state_size().tolist() == [0, 1, 2, 2]
    for given in ([0, 1, 1], np.array([0, 1, 1])):
        assert Dense(torch.eye(3), given).state_size().tolist() == [0, 1, 1]


def test_what_is_printed_of_an_operator_says_its_shape():
    assert repr(Dense(torch.zeros(2, 3, 3))) == "Dense(length=3, batch_shape=(2,), dtype=torch.float32)"


def test_a_convolution_is_toeplitz_with_a_shift_register_as_its_state() -> None:
    operator = Convolution(torch.tensor([2.0, 3.0]), np.int64(3))
    assert operator.dense().tolist() == [[2, 0, 0], [3, 2, 0], [0, 3, 2]]
    assert (type(operator.length), operator.state_size().tolist()) == (int, [1] * 3)
