import pickle

import pytest

from benchmarks.cases import cases, measured
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES


@pytest.mark.parametrize("case", cases(quick=True), ids=lambda case: case.name)
def test_each_case_is_made_and_its_engine_takes_it(case):
    operator = case.make(64)
    assert operator.length == 64
    assert ENGINES[case.engine].unsupported_reason(operator, make_cut(64), case.outputs) is None
    # Memory is measured in a child process.
    again = pickle.loads(pickle.dumps(case))  # noqa: S301
    found = measured(again.make(64)[(0,) * len(operator.batch_shape)], again, case.outputs[0], (1e-3,))
    assert (found.count is not None) == (case.outputs[0] == "counts")
