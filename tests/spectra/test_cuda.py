"""Every engine takes tensors on a GPU and answers, on the CPU, what it answers for tensors there."""

import pytest
import torch
from oracles.operators import random_operator

from statesize.measurement.measurement import measure
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("family", ["diagonal", "full", "delta", "complex", "attention", "long convolution"])
@pytest.mark.parametrize("engine", list(ENGINES))
def test_the_same_answers_on_a_gpu(engine, family):
    operator = random_operator(family, 0, 150)
    outputs = tuple(output for output in ("counts", "entropy", "values") if output in ENGINES[engine].outputs)
    if ENGINES[engine].unsupported_reason(operator, make_cut(150), outputs) is not None:
        pytest.skip("not for this engine")
    expected = measure(operator, (1e-3,), (1e-2,), outputs=outputs, engine=engine)
    found = measure(operator.to(device="cuda"), (1e-3,), (1e-2,), outputs=outputs, engine=engine)
    assert found.engine == expected.engine
    for name in ("count", "lower", "upper", "relative_count"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    torch.testing.assert_close(found.norm, expected.norm, rtol=1e-9, atol=1e-12)
    reach = found.entropy_bound + expected.entropy_bound
    assert bool(((found.entropy - expected.entropy).abs() <= reach).all())
