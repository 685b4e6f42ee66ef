from __future__ import annotations

import pytest
import torch

import statesize as ss
from statesize.errors import InputError
from statesize.operators.operator import Operator
from statesize.operators.stepped import DelayedRecurrence
from statesize.operators.transition import PairTransition
from statesize.spectra.border_maps import border_maps
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


@pytest.mark.parametrize("form", ["scalar", "diagonal"])
def test_diagonals_are_kept_as_pairs(form: str) -> None:
    parts = _tensors(3, form)
    given = DelayedRecurrence(**parts).transition
    assert isinstance(given, PairTransition)
    same = DelayedRecurrence(**(parts | {"A": torch.diag_embed(parts["A"].expand(2, 3, 12, 3))})).transition
    torch.testing.assert_close(given.matrix(), same.matrix())
    torch.testing.assert_close(given.spaced(2).matrix(), same.spaced(2).matrix())
    assert (given.gain() >= torch.linalg.matrix_norm(given.matrix(), 2) * (1 - 1e-12)).all()
    rows = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(given.recede(5, rows), same.recede(5, rows))
    torch.testing.assert_close(given.advance(5, rows.mT), same.advance(5, rows.mT))


def test_chunks_of_pairs_are_those_of_full_transitions() -> None:
    parts = {name: part[0, 0] for name, part in _tensors(3, "diagonal").items()}
    given = DelayedRecurrence(**parts)
    same = DelayedRecurrence(**(parts | {"A": torch.diag_embed(parts["A"])}))
    # Chunks of several widths, so that some are filled up.
    for found, expected in zip(border_maps(given, [0, 3, 8, 12]), border_maps(same, [0, 3, 8, 12]), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("engine", ["all_cuts", "exact"])
def test_pairs_are_measured_as_full_transitions_are(engine: str) -> None:
    parts = {name: part[:1, :1] for name, part in _tensors(3, "diagonal").items()}
    given = DelayedRecurrence(**parts)
    same = DelayedRecurrence(**(parts | {"A": torch.diag_embed(parts["A"])}))
    found, expected = (ss.measure(operator, engine=engine) for operator in (given, same))
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=1e-9, atol=1e-9)
