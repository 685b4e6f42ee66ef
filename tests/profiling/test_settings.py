"""Settings: what a profile may be asked for, and what is refused by name."""

import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.profiling.settings import check_settings


def positions_of(positions):
    return check_settings((1e-3,), (1e-2,), positions, "auto").positions


@pytest.mark.parametrize("given", [2, np.int64(2), torch.tensor(2)], ids=repr)
def test_a_number_of_positions(given):
    assert positions_of(given) == 2


@pytest.mark.parametrize(
    "given", [[9, 0, 2, 2], np.array([2, 9]), torch.tensor([2, 9]), range(2, 10, 7), (np.int64(9), 2)], ids=repr
)
def test_a_list_of_positions(given):
    assert positions_of(given) == (2, 9)


def test_a_tensor_of_one_position_is_a_list():
    assert positions_of(torch.tensor([3])) == (3,)


@pytest.mark.parametrize("given", [0, -2, [], [0], [-1], 2.5, True, "a", "12", [1.7], [True], [None], ["1"]])
def test_wrong_positions(given):
    with pytest.raises(InputError, match=r"^positions "):
        positions_of(given)


def test_thresholds_become_numbers():
    settings = check_settings(np.array([1e-3, 1e-1]), torch.tensor([0.5, 0.25]), None, "auto")
    assert settings.tolerances == (1e-3, 1e-1)
    assert settings.relative_tolerances == (0.5, 0.25)
    assert {type(threshold) for threshold in settings.tolerances} == {float}


@pytest.mark.parametrize("name", ["tolerances", "relative_tolerances"])
@pytest.mark.parametrize("given", [1e-3, "a", None, ["1e-3"], [None], [[1e-3]], [-1.0], [float("nan")]], ids=repr)
def test_wrong_thresholds(name, given):
    arguments = {"tolerances": (1e-3,), "relative_tolerances": (1e-2,), name: given}
    with pytest.raises(InputError, match=f"^{name} "):
        check_settings(**arguments, positions=None, engine="auto")
