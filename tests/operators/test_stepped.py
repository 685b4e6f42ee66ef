"""Recurrences of several steps a position are measured between positions."""

import pytest
import torch
from oracles.draws import normal
from torch import Tensor

import statesize as ss
from statesize.operators import Recurrence
from statesize.operators.stepped import Stepped

LENGTH, STATES, STEPS = 6, 3, 2


def product(batch: tuple[int, ...] = (2,)) -> Stepped:
    """A product of delta rules."""
    key, query = normal(2, *batch, LENGTH * STEPS, STATES)
    query = query * (torch.arange(LENGTH * STEPS) % STEPS == STEPS - 1)[:, None]
    beta, decay = normal(2, *batch, LENGTH * STEPS, seed=1).sigmoid()
    return Stepped(Recurrence.delta_rule(key / 2, beta, query, decay), STEPS)


def blocks(operator: Stepped, past: int | None = None, future: int | None = None) -> list[Tensor]:
    """H_i by the definition: all inputs of earlier positions, all outputs of later ones."""
    matrix = operator.dense()
    first, last = past or 1, LENGTH - (future or 1)
    return [matrix[..., i : i + (future or LENGTH), i - (past or i) : i, :].flatten(-2) for i in range(first, last + 1)]


@pytest.mark.parametrize(("past", "future"), [(None, None), (2, None), (2, 3)])
def test_measure_agrees_with_the_definition(past: int | None, future: int | None) -> None:
    operator = product()
    values = ss.measure(operator, outputs=("values",), past=past, future=future).values
    assert values is not None
    for place, block in enumerate(blocks(operator, past, future)):
        expected = torch.linalg.svdvals(block)
        count = min(expected.shape[-1], values.shape[-1])
        torch.testing.assert_close(values[..., place, :count], expected[..., :count], rtol=1e-10, atol=1e-12)
        assert not bool((values[..., place, count:] > 1e-12).any())
        assert not bool((expected[..., count:] > 1e-12).any())


def test_apply_takes_the_inputs_of_a_position_one_after_another() -> None:
    operator = product()
    inputs = normal(2, LENGTH, STEPS * 4, seed=1)
    expected = torch.einsum("...ijm,...jmc->...ic", operator.dense(), inputs.unflatten(-1, (STEPS, 4)))
    torch.testing.assert_close(operator.apply(inputs), expected)


def test_the_ceiling_counts_all_inputs_of_a_position() -> None:
    measured = ss.measure(product())
    assert measured.ceiling.tolist() == [2, 3, 3, 2, 1]
    assert measured.state_size.tolist() == [STATES] * (LENGTH - 1)
