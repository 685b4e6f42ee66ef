from dataclasses import replace

import pytest
import torch

from statesize.operators import Dense, Shared, SoftmaxAttention
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine


@pytest.mark.few(3)
@pytest.mark.parametrize("window", [None, 1, 25, 300])
@pytest.mark.parametrize("windows", [{}, {"past": 20, "future": 30}])
def test_blocks_of_attention_without_the_whole_of_it(windows: dict[str, int], window: int | None) -> None:
    g = torch.Generator().manual_seed(2)
    query, key = (torch.randn(2, 3, 600, 8, generator=g, dtype=torch.float64) for _ in range(2))
    heads = SoftmaxAttention(query, key, 0.3, window, sink=torch.randn(2, 3, generator=g, dtype=torch.float64))
    cut = make_cut(600, [30, 290, 560], **windows)
    engine, whole = DenseEngine(whole=0), Dense(heads.dense())
    for operator, matrix, asked in (
        (heads, whole, cut),
        (Shared(heads), Shared(whole), replace(cut, readouts=3)),
    ):
        formed, apart = engine.blocks(matrix, asked), engine.blocks(operator, asked)
        torch.testing.assert_close(apart.values, formed.values, rtol=1e-12, atol=1e-15)
        assert torch.equal(apart.limit, formed.limit)
        assert engine.footprint(operator, asked) < engine.footprint(matrix, asked)


def test_blocks_of_fewer_rows_are_formed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key = torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    heads, engine, formed = SoftmaxAttention(query, key, 0.5), DenseEngine(), list[int]()
    form = SoftmaxAttention.dense
    monkeypatch.setattr(SoftmaxAttention, "dense", lambda self: formed.append(0) or form(self))
    few, many = make_cut(60, [40]), make_cut(60, [10, 40])
    expected = torch.linalg.svdvals(form(heads)[40:, :40])
    for cut, times in ((few, 0), (many, 1)):
        assert engine.forms_whole(cut) is bool(times)
        torch.testing.assert_close(engine.blocks(heads, cut).values[-1, :20], expected)
        assert len(formed) == times


def test_gradients_flow_through_blocks_of_attention() -> None:
    query, key = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def values(leaf: torch.Tensor) -> torch.Tensor:
        return DenseEngine(whole=0).blocks(SoftmaxAttention(leaf, key, 0.5), make_cut(7, [2, 4])).values

    assert torch.autograd.gradcheck(values, (query.requires_grad_(),))
