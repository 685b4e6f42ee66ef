"""What capture yields: operators that are built when they are asked for."""

import pytest
import torch
from torch import nn

from statesize import capture
from statesize.adapters.build import from_observation
from statesize.adapters.check import Agreement
from statesize.adapters.observation import Observation
from statesize.errors import InputError
from statesize.operators import Dense


def test_an_operator_that_is_refused_names_its_mixer():
    matrices = torch.ones(1, 3, 4, 4).tril()
    matrices[0, 2, 1, 0] = torch.nan
    values = torch.ones(1, 3, 4, 2)
    observation = Observation(
        "as observed", "attention", lambda units: Dense(matrices[:, units]), values, values, None, 0
    )
    captured = from_observation("layers.3@1", observation, 0.0, Agreement())
    assert torch.equal(captured.units_operator(slice(2)).dense(), matrices[:, :2])
    with pytest.raises(InputError, match=r"^Mixer layers\.3@1 \(indices are sequence, chosen unit, .*\(0, 0, 1, 0\)"):
        captured.units_operator([2])
    with pytest.raises(InputError, match=r"^Mixer layers\.3@1 .*\(0, 2, 1, 0\)"):
        _ = captured.operator


class Scores(nn.Module):
    """Linear attention of one head that declares its T."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(3))

    def operator(self, hidden):
        return Dense((self.query(hidden) @ self.key(hidden).mT).tril()[:, None])

    def forward(self, hidden):
        return self.operator(hidden).dense()[:, 0] @ self.value(hidden)


def test_an_operator_is_given_what_hooks_make_of_the_input():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), Scores())
    model[1].register_forward_pre_hook(lambda _, args: (args[0] / 2,))
    ids = torch.arange(9)[None]
    (item,) = capture(model, ids)
    with torch.no_grad():
        expected = model[1].operator(model[0](ids) / 2).dense()
    torch.testing.assert_close(item.operator.dense(), expected, rtol=1e-6, atol=1e-7)
    assert len(model[1]._forward_pre_hooks) == 1
