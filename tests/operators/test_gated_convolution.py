"""Gated convolutions: the contract, and what they refuse."""

import pytest
import torch

from statesize.errors import InputError
from statesize.operators import Convolution, GatedConvolution, Operator
from statesize.testing import OperatorContract


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class TestContract(OperatorContract):
    taps = 9

    def tensors(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return normal(generator, 1, 3, self.taps), normal(generator, 2, 3, 9), normal(generator, 2, 1, 9)

    def build(self, *tensors: torch.Tensor) -> Operator:
        return GatedConvolution(*tensors)


class TestContractOfShortKernels(TestContract):
    taps = 4


class TestContractOfKernelsLongerThanTheSequence(TestContract):
    taps = 12


def test_gates_scale_rows_and_columns() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel, input_gate, output_gate = (normal(generator, 2, 6) for _ in range(3))
    expected = output_gate.diag_embed() @ Convolution(kernel, 6).dense() @ input_gate.diag_embed()
    torch.testing.assert_close(GatedConvolution(kernel, input_gate, output_gate).dense(), expected)


def test_dtypes_are_promoted() -> None:
    operator = GatedConvolution(torch.ones(3), torch.ones(4, dtype=torch.float64), torch.ones(4))
    assert operator.dtype == operator.input_gate.dtype == operator.output_gate.dtype == torch.float64


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ((torch.ones(2, 4), torch.ones(2, 5)), r"same length, got \(2, 4\) and \(2, 5\)"),
        ((torch.ones(4), torch.ones(2, 4)), r"input_gate must have shape \(\.\.\., L\) with 2 dimensions"),
        ((torch.ones(3, 4), torch.ones(2, 4)), r"batch dimensions must be equal or 1"),
        ((torch.ones(2, 4), torch.full((2, 4), torch.nan)), r"output_gate must be finite, got nan at index \(0, 0\)"),
        ((torch.ones(2, 4).long(), torch.ones(2, 4)), r"input_gate must be a floating-point tensor"),
        ((torch.ones(2, 0), torch.ones(2, 0)), r"input_gate must hold at least one position, got shape \(2, 0\)"),
    ],
)
def test_bad_tensors_are_refused_and_quoted(gates: tuple[torch.Tensor, torch.Tensor], said: str) -> None:
    with pytest.raises(InputError, match=said):
        GatedConvolution(torch.ones(2, 3), *gates)


def test_a_kernel_that_is_a_number_is_refused() -> None:
    number = torch.tensor(1.0)
    with pytest.raises(InputError, match=r"kernel must have shape \(\.\.\., K\), got a single number"):
        GatedConvolution(number, number, number)
