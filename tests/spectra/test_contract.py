"""Every engine of the list passes the contract that statesize offers to others."""

import pytest

from statesize.operators import Operator
from statesize.spectra.all_cuts.all_cuts import AllCutsEngine
from statesize.spectra.cut import Cut
from statesize.spectra.dispatch import ORDER
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.exact.exact import ExactEngine
from statesize.spectra.spectrum import Spectrum
from statesize.testing import EngineContract

# Sizes that divide a short sequence into several chunks, leaves or blocks.
SMALL = (AllCutsEngine(halvings=2),)


class TestEveryEngine(EngineContract):
    @pytest.fixture(autouse=True, params=[*ORDER, *SMALL], ids=lambda engine: f"{engine.name}-{engine in SMALL}")
    def named(self, request: pytest.FixtureRequest) -> None:
        self.engine = request.param


class Careless(DenseEngine):
    """An engine whose values are off by more than it says."""

    def blocks(self, operator: Operator, cut: Cut) -> Spectrum:
        spectrum = super().blocks(operator, cut)
        return Spectrum(spectrum.values * (1 + 1e-6), spectrum.error_bound, spectrum.limit)


@pytest.mark.parametrize("check", ["outputs_agree_with_the_definition", "windows_agree_with_the_definition"])
def test_a_careless_engine_fails(check: str) -> None:
    class Contract(EngineContract):
        engine = Careless()

    with pytest.raises(AssertionError):
        getattr(Contract(), f"test_{check}")()


@pytest.mark.parametrize("moved", [-1, 1])
@pytest.mark.parametrize("side", ["rows", "columns"])
def test_a_cut_that_is_off_by_one_fails(side: str, moved: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The definition and all engines that take blocks by `Cut.reach` would agree with each other."""
    reach = Cut.reach

    def off(self: Cut, position: int) -> tuple[slice, slice]:
        rows, columns = reach(self, position)
        if side == "rows":
            return slice(max(rows.start - moved, 0), rows.stop - moved), columns
        return rows, slice(max(columns.start - moved, 0), columns.stop - moved)

    class Contract(EngineContract):
        engine = ExactEngine()

    monkeypatch.setattr(Cut, "reach", off)
    with pytest.raises(AssertionError, match="exact"):
        Contract().test_windows_agree_with_the_definition()
