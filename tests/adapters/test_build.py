"""What capture yields: operators that are built when they are asked for."""

import pytest
import torch

from statesize.adapters.build import from_observation
from statesize.adapters.check import Agreement
from statesize.adapters.observation import Observation
from statesize.errors import InputError
from statesize.operators import Dense


def test_an_operator_that_is_refused_names_its_mixer():
    matrices = torch.ones(1, 3, 4, 4).tril()
    matrices[0, 2, 1, 0] = torch.nan
    values = torch.ones(1, 3, 4, 2)
    observation = Observation("as observed", "attention", lambda units: Dense(matrices[:, units]), values, values)
    captured = from_observation("layers.3@1", observation, 0.0, Agreement())
    assert torch.equal(captured.units_operator(slice(2)).dense(), matrices[:, :2])
    with pytest.raises(InputError, match=r"^Mixer layers\.3@1 \(indices are sequence, chosen unit, .*\(0, 0, 1, 0\)"):
        captured.units_operator([2])
    with pytest.raises(InputError, match=r"^Mixer layers\.3@1 .*\(0, 2, 1, 0\)"):
        _ = captured.operator
