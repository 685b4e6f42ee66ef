import numpy as np
import pytest

from statesize.spectra.shifts.tridiagonal_cores import eliminate_around_cores


@pytest.mark.parametrize("b", [16, 32])
@pytest.mark.parametrize("shifts", [(-0.4, -0.4), (0.3, -0.3)])
def test_core_and_chunk_as_one_matrix(b, shifts):
    rng = np.random.default_rng(b)
    sizes = [0, 1, 5, 32, 33, 70, 3]
    N, first = len(sizes), np.concatenate([[0], np.cumsum(sizes)])
    of_past = rng.random(N) < 0.5
    diagonal, beside = rng.random(first[-1]) + 1, 0.3 * rng.random(first[-1])
    beside[first[1:][np.array(sizes) > 0] - 1] = 0
    borders = rng.standard_normal((first[-1], 2 * b)) / 10
    gram, inside = rng.standard_normal((2, N, b, b))
    gram = gram @ gram.transpose(0, 2, 1)
    order = np.array([3, 0, 6, 5, 4, 2, 1, 5, 5, 3])
    a, c = (np.full(len(order), shift) * rng.uniform(0.9, 1.1, len(order)) for shift in shifts)
    shape = len(order), b
    positive, logarithm, size = np.empty(shape, np.int64), np.empty(shape), np.empty(shape)
    cores = of_past, first, diagonal, beside, borders.ravel(), gram, inside
    eliminate_around_cores(order, a, c, *cores, 1, positive, logarithm, size)
    for m, k in enumerate(order):
        low, high = first[k], first[k + 1]
        below = beside[low : max(low, high - 1)]
        theta = np.diag(diagonal[low:high]) + (np.diag(below, 1) + np.diag(below, -1) if len(below) else 0)
        coupling = borders[low:high].copy()
        if of_past[k]:
            outer, inner, rows, columns = a[m], c[m], 0 * gram[k], gram[k] / a[m]
            coupling[:, b:] /= -a[m]
        else:
            outer, inner, rows, columns = c[m], a[m], gram[k] / c[m], 0 * gram[k]
            coupling[:, :b] /= -c[m]
        p, eye = high - low, np.eye(b)
        chunk = np.block([[a[m] * eye - rows, inside[k]], [inside[k].T, c[m] * eye - columns]])
        whole = np.block([[inner * np.eye(p) - theta / outer, coupling], [coupling.T, chunk]])
        for j in range(b):
            kept = [*range(p), *range(p + j, p + b), *range(p + b, p + b + j)]
            block = whole[np.ix_(kept, kept)]
            eigenvalues = np.linalg.eigvalsh(block)
            assert positive[m, j] == (eigenvalues > 0).sum()
            doubt = 1e-13 * size[m, j] / np.abs(eigenvalues).min()
            assert abs(logarithm[m, j] - np.linalg.slogdet(block).logabsdet) <= doubt
