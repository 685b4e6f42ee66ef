import zlib
from pathlib import Path

import pytest
import torch
from oracles.recurrences import random_recurrence

from statesize.operators import Recurrence
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.exact.square_root import square_root_spectrum
from statesize.spectra.lanes import vectors
from statesize.spectra.lanes.small_state import SmallStateEngine
from statesize.spectra.lanes.spectra import squared_spectra
from statesize.spectra.lanes.vectors import VERSION
from statesize.spectra.spectrum import UNDERFLOW


@pytest.mark.parametrize("states", [1, 5, 16])
def test_the_error_of_the_factors_is_that_of_the_square_root_engine(states: int) -> None:
    base = random_recurrence("diagonal", 3, 60, states, batch=(2, 5))
    growing = Recurrence(base.A * torch.linspace(0.2, 1.4, 5)[:, None, None], base.B, base.C)
    cut = make_cut(60)
    plain, fast = square_root_spectrum(growing, cut), SmallStateEngine().blocks(growing, cut)
    torch.testing.assert_close(fast.carried_error - UNDERFLOW, plain.error_bound, rtol=1e-9, atol=0)


@pytest.mark.parametrize("length", [64, 65, 97])
@pytest.mark.parametrize("stride", [1, 31, 40])
def test_chunks_of_positions(length: int, stride: int) -> None:
    recurrence = random_recurrence("diagonal", length, length, 3, batch=(2,))
    cut = make_cut(length, range(1, length, stride))
    fast, plain = SmallStateEngine().blocks(recurrence, cut), DenseEngine().blocks(recurrence, cut)
    off = (fast.values - plain.values[..., :3]).abs().amax(-1)
    assert bool((off <= fast.error_bound + plain.error_bound).all())


def test_positions_in_any_order_and_number() -> None:
    recurrence = random_recurrence("diagonal", 0, 41, 3, batch=(9,))
    everywhere = SmallStateEngine().blocks(recurrence, make_cut(41))
    for positions in ([17, 3, 3, 40], [1], list(range(2, 41, 3)), list(range(40, 0, -1))):
        some = SmallStateEngine().blocks(recurrence, make_cut(41, positions))
        at = torch.tensor(positions) - 1
        # Not bit for bit: a position's iteration goes on while one of its neighbours' does.
        exact, off = everywhere.values[:, at][..., : some.values.shape[-1]], some.error_bound[..., None]
        assert bool(((some.values - exact).abs() <= off).all())
        assert torch.equal(some.carried_error, everywhere.carried_error[:, at])


def test_what_is_not_finite_is_not_hidden() -> None:
    base = random_recurrence("diagonal", 0, 40, 4, batch=(3,))
    B = base.B.clone()
    B[1] *= 1e200
    values = SmallStateEngine().blocks(Recurrence(base.A, B, base.C * 1e100), make_cut(40)).values
    assert not bool(torch.isfinite(values[1]).all())
    assert bool(torch.isfinite(values[[0, 2]]).all())


def test_compiled_code_is_kept_by_what_all_files_of_the_folder_say() -> None:
    small = random_recurrence("diagonal", 0, 12, 2)
    SmallStateEngine().blocks(small, make_cut(12))
    assert squared_spectra.signatures
    assert all(f"omitted(default={VERSION})" in str(signature) for signature in squared_spectra.signatures)
    folder = Path(vectors.__file__).parent
    assert {path.name for path in folder.glob("*.py")} >= {"eigenvalues.py", "spectra.py", "vectors.py"}
    assert VERSION == zlib.crc32(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py"))))
