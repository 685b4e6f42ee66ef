"""Products with the blocks of softmax attention, against T."""

import pytest
import torch
from oracles.draws import normal
from torch import Tensor

from statesize.operators import SoftmaxAttention
from statesize.spectra.implicit.attention import STRIP, AttentionProducts


def head(length: int, window: int | None = None, parts: tuple[str, ...] = ()) -> SoftmaxAttention:
    g = torch.Generator().manual_seed(length)
    query, key = (2 * torch.randn(length, 5, generator=g, dtype=torch.float64) for _ in range(2))
    extras = {
        "key_bias": torch.linspace(-length / 9, 0, length, dtype=torch.float64),
        "sink": torch.tensor(0.3, dtype=torch.float64),
        "soft_cap": 1.5,
    }
    return SoftmaxAttention(query, key, 0.7, window, **{name: extras[name] for name in parts})


ALL = ("key_bias", "sink", "soft_cap")


@pytest.mark.few(24)
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("parts", [(), ("key_bias",), ("sink",), ("soft_cap",), ALL])
@pytest.mark.parametrize("window", [None, 1, 40, 400])
@pytest.mark.parametrize("length", [5, STRIP + 50, 2 * STRIP + 77])
@pytest.mark.parametrize("by_rows", [False, True])
def test_products_are_those_of_the_blocks(
    by_rows: bool, length: int, window: int | None, parts: tuple[str, ...], heads: int
) -> None:
    """With their rows, those of several heads beside each other, from the last to the first; or with their columns."""
    one = head(length, window, parts)
    query = torch.stack([(1 + k) * one.query for k in range(heads)])
    extras = {name: part.expand(heads, *part.shape) for name in parts if isinstance(part := getattr(one, name), Tensor)}
    attention = SoftmaxAttention(query, one.key[None], 0.7, window, soft_cap=one.soft_cap, **extras)
    T, cuts = attention.dense(), sorted({1, 2, length // 3, length // 2, length - 1}, reverse=by_rows)
    products = AttentionProducts(attention, cuts, by_rows=by_rows)
    sizes = [heads * (length - i) if by_rows else i for i in cuts]
    given = [normal(place % 3, size, seed=size) for place, size in enumerate(sizes)]
    for i, x, product, norm in zip(cuts, given, products.gram(given), products.norms, strict=True):
        H = T[:, i:, :i].flip(1).transpose(0, 1).flatten(0, 1)
        H = H.mT if by_rows else H
        torch.testing.assert_close(product, x @ H.mT @ H, rtol=0, atol=1e-13)
        torch.testing.assert_close(norm, H.norm(), rtol=1e-12, atol=0)


def test_extreme_scores_do_not_overflow() -> None:
    g = torch.Generator().manual_seed(0)
    query, key = (300 * torch.randn(50, 3, generator=g, dtype=torch.float64) for _ in range(2))
    attention = SoftmaxAttention(query, key, 1.0)
    H = attention.dense()[20:, :20]
    x, rows = normal(2, 20, seed=20), AttentionProducts(attention, [20], by_rows=False)
    torch.testing.assert_close(rows.gram([x])[0], x @ H.mT @ H, rtol=0, atol=1e-9)
    torch.testing.assert_close(rows.norms[0], H.norm(), rtol=1e-9, atol=0)
