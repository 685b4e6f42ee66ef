import pytest
import torch
from torch import nn

from statesize.adapters.search.lone.runs import LoneRuns

ALLOCATIONS = {
    "empty": lambda hidden: torch.empty(hidden.shape, dtype=hidden.dtype),
    "empty_like": torch.empty_like,
    "empty_permuted": lambda hidden: torch.empty_permuted(hidden.shape, (0, 2, 1), dtype=hidden.dtype),
    "empty_strided": lambda hidden: torch.empty_strided(hidden.shape, hidden.stride(), dtype=hidden.dtype),
    "new_empty": lambda hidden: hidden.new_empty(hidden.shape),
    "new_empty_strided": lambda hidden: hidden.new_empty_strided(hidden.shape, hidden.stride()),
}


@pytest.fixture
def unwritten_memory_is_nan():
    """Torch fills memory with NaN before an operation returns it unwritten."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("allocate", ALLOCATIONS.values(), ids=ALLOCATIONS)
@pytest.mark.usefixtures("unwritten_memory_is_nan")
def test_memory_that_is_written_later_holds_no_numbers_of_another_computation(allocate):
    class Layer(nn.Module):
        def forward(self, hidden):
            outputs = allocate(hidden)
            later = outputs[:, 1:]
            later.copy_(hidden[:, :-1])
            outputs[:, 0] = 0
            return outputs + hidden

    run = LoneRuns(Layer(), (torch.randn(1, 6, 4),), {}, 6, 1, largest=10**6).run(None)
    assert run.operations > 5
    assert all(bool(tensor.isfinite().all()) for tensor in run.tensors.values())
