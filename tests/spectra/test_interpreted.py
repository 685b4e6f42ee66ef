"""Compiled code against the same lines run by Python, where every lane is an entry of a numpy array."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType

import numba
import numpy as np
import pytest
import torch

from statesize.spectra.exact import square_root as triangular_update
from statesize.spectra.lanes import eigenvalues as lane_eigenvalues
from statesize.spectra.lanes import elimination as lane_elimination
from statesize.spectra.lanes import spectra as lane_spectra
from statesize.spectra.shifts import bordered as elimination_tree
from statesize.spectra.shifts import tridiagonal_cores as cores
from statesize.spectra.shifts import tridiagonal_reduction as reduction

# In the order in which they import one another.
COMPILED = {
    "lane_eigenvalues": "lanes.eigenvalues",
    "lane_spectra": "lanes.spectra",
    "lane_elimination": "lanes.elimination",
    "reduction": "shifts.tridiagonal_reduction",
    "cores": "shifts.tridiagonal_cores",
    "elimination_tree": "shifts.bordered",
    "triangular_update": "exact.square_root",
}


def lanes() -> ModuleType:
    """In the place of statesize.spectra.lanes.vectors."""

    def lane_functions(width: int) -> tuple[Callable[..., np.ndarray], ...]:
        load, splat = lambda array, k: array[k * width : (k + 1) * width].copy(), lambda x: np.full(width, x)
        return load, splat, lambda array, k: splat(array[k])

    def store(array: np.ndarray, k: int, x: np.ndarray) -> None:
        array[k * len(x) : (k + 1) * len(x)] = x

    module = ModuleType("statesize.spectra.lanes.vectors")
    module.compile_lanes = module.compile_entry = lambda function: function
    module.VERSION = 0
    module.lane_functions, module.store, module.square_root = lane_functions, store, np.sqrt
    module.where_positive = lambda x, positive, other: np.where(x > 0, positive, other)
    module.mantissa = lambda x: 2 * np.frexp(np.abs(x))[0]
    module.exponent = lambda x: np.frexp(np.abs(x))[1] - 1.0
    module.any_positive = lambda x: bool((x > 0).any())
    module.lane_sum = lambda x: float(x.sum())
    return module


@pytest.fixture
def interpreted(monkeypatch):
    """The modules whose functions are compiled, without compilation."""
    # Only while they are imported: what numba keeps of the compiled ones is read by the names of their modules.
    with monkeypatch.context() as only_here:
        only_here.setattr(numba, "njit", lambda **options: lambda function: function)
        only_here.setitem(sys.modules, "statesize.spectra.lanes.vectors", lanes())
        for place in COMPILED.values():
            room, name = place.split(".")
            only_here.setattr(sys.modules[f"statesize.spectra.{room}"], name, None)
            only_here.delitem(sys.modules, f"statesize.spectra.{place}")
        modules = {name: importlib.import_module(f"statesize.spectra.{place}") for name, place in COMPILED.items()}
    with np.errstate(all="ignore"):
        yield modules


def test_they_are_not_compiled(interpreted):
    for name, module in interpreted.items():
        functions = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
        assert functions, name
        assert not any(hasattr(function, "py_func") for function in functions)
    assert hasattr(lane_elimination._gather, "py_func")


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_eigenvalues(interpreted, n):
    width, groups = lane_eigenvalues.WIDTH, lane_eigenvalues.GROUPS
    normal = np.random.default_rng(n).standard_normal((n, n, groups, width))
    normal[..., 0, 0] = normal[:, :1, 0, 0]  # of rank 1
    gram = np.einsum("ikgw,jkgw->gijw", normal, normal)
    gram /= np.einsum("giiw->gw", gram)[:, None, None]

    def found(module):
        diagonal, squares = np.zeros(n * groups * width), np.zeros(n * groups * width)
        for group in range(groups):
            module.tridiagonalise(gram[group].flatten(), n, group, diagonal, squares, np.zeros(2 * n * width))
        module.root_free_qr(diagonal, squares, n)
        module.sort_descending(diagonal, n)
        return diagonal

    np.testing.assert_allclose(found(interpreted["lane_eigenvalues"]), found(lane_eigenvalues), rtol=0, atol=3e-15)


@pytest.mark.parametrize(("entries", "length", "states"), [(1, 9, 1), (9, 35, 3), (3, 66, 4)])
def test_spectra_of_small_recurrences(interpreted, entries, length, states):
    rng = np.random.default_rng(states)
    A, B, C = (rng.standard_normal((entries, length, states, 1)) for _ in range(3))
    A = 0.5 * A
    A[:, length // 2] = 0  # a reset: nothing of the past is left
    # As the engine gives them, for which they are compiled already.
    A, B, C = (torch.from_numpy(part).expand(-1, -1, -1, 2).numpy() for part in (A, B, C))
    positions = np.arange(1, length, 2)
    limits = np.minimum(positions, length - positions)

    def found(module):
        squares = np.zeros((entries, len(positions), states))
        errors, totals = np.zeros((2, entries, len(positions))), np.zeros(entries)
        module.squared_spectra(A, B, C, positions, limits, squares, errors, totals)
        return squares, errors, totals

    slow, fast = found(interpreted["lane_spectra"]), found(lane_spectra)
    np.testing.assert_allclose(slow[0], fast[0], rtol=0, atol=1e-14 * fast[0].max())
    for one, other in zip(slow[1:], fast[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)


@pytest.mark.parametrize(("chunks", "width"), [(1, 1), (9, 8), (3, 5)])
def test_eliminations_of_a_chunk(interpreted, chunks, width):
    whole = torch.randn(chunks, 2 * width, 2 * width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = whole + whole.mT
    given = whole[:, :width, :width], whole[:, :width, width:], whole[:, width:, width:]
    slow, fast = (module.eliminate(*given) for module in (interpreted["elimination_tree"], elimination_tree))
    assert torch.equal(slow[0], fast[0])
    torch.testing.assert_close(slow[1], fast[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slow[2], fast[2], rtol=1e-9, atol=0)


def test_tridiagonal_forms(interpreted):
    # Two panels of reflections, and columns beside.
    half = np.random.default_rng(0).standard_normal((2, 16, 24))
    given = np.concatenate([half @ half.transpose(0, 2, 1), half[:, :, :8]], -1)

    def found(module):
        whole, parts = given.copy(), np.empty((2, 2, 16))
        module.tridiagonalise(whole, *parts)
        return *parts, whole[:, :, 16:]

    for slow, fast in zip(found(interpreted["reduction"]), found(reduction), strict=True):
        np.testing.assert_allclose(slow, fast, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("readouts", [1, 3])
def test_eliminations_around_cores(interpreted, readouts):
    rng, b = np.random.default_rng(0), 16
    sizes = [0, 3, 34]
    first = np.concatenate([[0], np.cumsum(sizes)])
    diagonal, borders = rng.random(first[-1]) + 1, rng.standard_normal(first[-1] * (readouts + 1) * b) / 10
    gram, inside = rng.standard_normal((3, readouts * b, readouts * b)), rng.standard_normal((3, readouts * b, b))
    chunk, shift = np.array([2, 0, 1, 2]), np.array([0.3, 0.2, 0.1, 0.4])
    given = np.array([True, True, False]), first, diagonal, 0.3 * np.ones(first[-1]), borders, gram, inside

    def found(module):
        results = np.empty((4, b), np.int64), np.empty((4, b)), np.empty((4, b))
        module.eliminate_around_cores(chunk, shift, -shift, *given, *results)
        return results

    for slow, fast in zip(found(interpreted["cores"]), found(cores), strict=True):
        np.testing.assert_allclose(slow, fast, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scalar", [False, True])
def test_carried_factors(interpreted, scalar):
    g = torch.Generator().manual_seed(0)
    decay = torch.rand(2, 12, 1 if scalar else 4, generator=g, dtype=torch.float64)
    rows = torch.randn(2, 12, 4, generator=g, dtype=torch.float64)
    rows[:, :2] = 0  # nothing is written yet
    given = decay, rows, torch.arange(12) % 3 == 0
    slow, fast = (module.carried_factors(*given) for module in (interpreted["triangular_update"], triangular_update))
    torch.testing.assert_close(slow, fast, rtol=1e-12, atol=1e-14)


def test_eigenvalues_that_are_not_found_are_no_numbers(interpreted, monkeypatch):
    monkeypatch.setattr(interpreted["lane_eigenvalues"], "_SWEEPS", 0)
    rng = np.random.default_rng(0)
    A, B, C = (rng.standard_normal((2, 12, 3, 1)) for _ in range(3))
    # The second never has more than one state that is not 0, and nothing to iterate.
    B[1, :, 1:] = 0
    positions = np.arange(1, 12)
    squares, errors, totals = np.zeros((2, 11, 3)), np.zeros((2, 2, 11)), np.zeros(2)
    limits = np.minimum(positions, 12 - positions)
    interpreted["lane_spectra"].squared_spectra(A, B, C, positions, limits, squares, errors, totals)
    assert np.isnan(squares[0, 3:7]).all()
    assert np.isfinite(squares[1]).all()
