from __future__ import annotations

import pytest
import torch

from statesize.errors import InputError
from statesize.operators.delayed import DelayedRecurrence
from statesize.operators.operator import Operator
from statesize.testing import OperatorContract


def _tensors(states: int, form: str, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
    generator = generator or torch.Generator().manual_seed(0)
    shape = (2, 3, 12, states)
    tails = {"scalar": (1,), "diagonal": (states,), "full": (states, states)}
    A = 0.8 * torch.randn(*shape[:-1], *tails[form], generator=generator, dtype=torch.float64)
    B, C = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return {"A": A, "B": B, "C": C, "D": torch.randn(shape[:-1], generator=generator, dtype=torch.float64)}


class TestContract(OperatorContract):
    def tensors(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return tuple(_tensors(3, "diagonal", generator).values())

    def build(self, *tensors: torch.Tensor) -> Operator:
        return DelayedRecurrence(*tensors)


@pytest.mark.parametrize("form", ["scalar", "diagonal", "full"])
def test_outputs_read_the_state_before_its_update(form: str) -> None:
    parts = _tensors(3, form)
    operator = DelayedRecurrence(**parts)
    A, B, C, D = parts.values()
    inputs = torch.eye(12, dtype=torch.float64)
    state, rows = torch.zeros(2, 3, 3, 12, dtype=torch.float64), []
    for t in range(12):
        rows.append((C[..., t, None, :] @ state).squeeze(-2) + D[..., t, None] * inputs[t])
        moved = A[..., t, :, :] @ state if form == "full" else A[..., t, :, None] * state
        state = moved + B[..., t, :, None] * inputs[t]
    torch.testing.assert_close(operator.dense(), torch.stack(rows, -2))
    torch.testing.assert_close(operator.apply(inputs.expand(2, 3, 12, 12)), operator.dense())
    assert operator.state_size().tolist() == [3] * 12


def test_transitions_of_another_shape_are_refused() -> None:
    parts = _tensors(3, "full")
    with pytest.raises(InputError, match="A must have shape"):
        DelayedRecurrence(parts["A"][..., 0, 0], parts["B"], parts["C"], parts["D"])
