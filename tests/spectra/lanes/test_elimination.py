import numpy as np
import pytest

from statesize.spectra.lanes.elimination import eliminate_chunks


def eliminated(whole, readouts=1):
    """Positive pivots, logarithms and sizes, (N, b) each."""
    shape = whole.shape[0], whole.shape[1] // (readouts + 1)
    results = np.empty(shape, np.int64), np.empty(shape), np.empty(shape)
    eliminate_chunks(whole, readouts, *results)
    return results


def block(whole, j, readouts=1):
    """S_j: the rows of the positions j … and the columns … j − 1 of a chunk."""
    rows = whole.shape[0] // (readouts + 1) * readouts
    kept = [*range(readouts * j, rows), *range(rows, rows + j)]
    return whole[np.ix_(kept, kept)]


def symmetric(seed, chunks, b, readouts=1):
    order = (readouts + 1) * b
    whole = np.random.default_rng(seed).standard_normal((chunks, order, order))
    return whole + whole.transpose(0, 2, 1)


@pytest.mark.parametrize("readouts", [1, 2, 3, 5])
@pytest.mark.parametrize(("chunks", "b"), [(1, 1), (3, 2), (2, 4), (8, 8), (9, 16), (17, 8), (2, 32)])
def test_every_position_as_if_alone(chunks, b, readouts):
    whole = symmetric(b, chunks, b, readouts)
    positive, logarithm, size = eliminated(whole, readouts)
    for k in range(chunks):
        for j in range(b):
            eigenvalues = np.linalg.eigvalsh(block(whole[k], j, readouts))
            assert positive[k, j] == (eigenvalues > 0).sum()
            expected = np.linalg.slogdet(block(whole[k], j, readouts)).logabsdet
            assert abs(logarithm[k, j] - expected) <= 1e-13 * size[k, j] / np.abs(eigenvalues).min()


def test_only_upper_triangles_are_read():
    whole = symmetric(0, 3, 8)
    upper = np.triu(whole)
    for one, other in zip(eliminated(whole), eliminated(upper + np.tril(np.full_like(whole, np.nan), -1)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("b", [1, 2, 4, 8, 16, 32])
def test_inertia_is_exact_within_the_stated_size(b):
    # Shifted beside eigenvalues, where round-off decides.
    whole = symmetric(1, 8, b)
    eps = np.finfo(float).eps
    for k in range(8):
        j = k % b
        eigenvalue = np.linalg.eigvalsh(block(whole[k], j))[b // 2]
        for beside in (0.0, 1e-14, -1e-14, 1e-12, -1e-12):
            shifted = whole[k] - (eigenvalue + beside) * np.eye(2 * b)
            positive, _, size = (part[0, j] for part in eliminated(shifted[None]))
            eigenvalues, doubt = np.linalg.eigvalsh(block(shifted, j)), 8 * eps * (size + b)
            assert (eigenvalues > doubt).sum() <= positive <= (eigenvalues > -doubt).sum()


@pytest.mark.parametrize("scale", [1e-200, 1e150])
def test_products_of_pivots_do_not_overflow(scale):
    whole = symmetric(2, 2, 32)
    _, expected, size = eliminated(whole)
    positive, logarithm, scaled = eliminated(whole * scale)
    np.testing.assert_array_equal(positive, eliminated(whole)[0])
    np.testing.assert_allclose(logarithm - 32 * np.log(scale), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(scaled, size * scale, rtol=1e-9)


def test_a_vanishing_pivot_is_told():
    whole = symmetric(3, 1, 2)
    whole[0, 1, 1] = 1e-13
    _, _, size = eliminated(whole)
    # Position 0 keeps both rows and starts with the pivot of the second.
    assert size[0, 0] > 1e11
    whole[0, 1, 1] = 0
    positive, _, size = eliminated(whole)
    assert not np.isfinite(size[0, 0])
    assert 0 <= positive[0, 0] <= 2


def test_infinite_and_missing_numbers_stay_visible():
    whole = symmetric(4, 2, 8)
    whole[0, 3, 3], whole[1, 0, 10] = np.inf, np.nan
    _, logarithm, _ = eliminated(whole)
    # S_j without what is not finite.
    assert np.isnan(logarithm[0, :4]).all()
    assert np.isfinite(logarithm[0, 4:]).all()
    assert np.isfinite(logarithm[1, 1:3]).all()
