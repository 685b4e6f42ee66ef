"""Models that compute in autocast: a mixer that runs alone has the precision that it had in the model."""

import pytest
import torch
from oracles.own_layers import TEXT, Own, model_of
from torch import nn

import statesize as ss
from statesize.codes import Code


def beside_its_input(own, hidden, value):
    return own.attend(hidden, value) + hidden


class InAutocast(nn.Module):
    """A model whose forward enters autocast."""

    def __init__(self, model, dtype):
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, input_ids):
        with torch.autocast("cpu", dtype=self.dtype):
            return self.model(input_ids)


@pytest.mark.parametrize(("mixed", "dtype"), [(beside_its_input, torch.bfloat16), (Own.scan, torch.float16)])
def test_autocast_around_a_mixer(mixed, dtype):
    model = model_of(mixed).float()
    (found,), (expected,) = ss.capture(InAutocast(model, dtype), TEXT), ss.capture(model, TEXT)
    assert 1e-5 < found.faithfulness <= found.agreement.allowed <= 1e-2
    assert found.notes == expected.notes
    # What enters the mixer is the same, and T is that of float64.
    torch.testing.assert_close(found.operator.dense(), expected.operator.dense(), rtol=1e-4, atol=1e-6)


class Inside(Own):
    """A mixer whose own forward enters autocast."""

    def forward(self, hidden):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(hidden)


@pytest.mark.parametrize("mixed", [beside_its_input, Own.scan])
def test_autocast_inside_a_mixer(mixed):
    (found,) = ss.capture(model_of(mixed, layer=Inside).float(), TEXT)
    assert 1e-5 < found.faithfulness <= found.agreement.allowed <= 1e-2
    assert [note.code for note in found.agreement.notes] == [Code.ROUNDED]
