from __future__ import annotations

import pytest
import torch

from statesize.adapters.observation import chosen, take


@pytest.mark.parametrize("units", [slice(None), slice(1, 4, 2), torch.tensor([4, 0, 4])])
def test_chosen_units_are_taken_in_their_order(units: slice | torch.Tensor) -> None:
    numbers = chosen(units, 5, torch.device("cpu"))
    tensor = torch.arange(30.0, requires_grad=True).reshape(2, 5, 3)
    taken = take(tensor, units, 1)
    assert taken.dtype == torch.float64
    assert taken.requires_grad
    assert torch.equal(taken, tensor[:, numbers].double())
