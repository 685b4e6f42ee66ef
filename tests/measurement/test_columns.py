"""Sinks against numpy, and where there are none."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from oracles.draws import language_model
from oracles.exact import effective_rank
from oracles.operators import random_operator

from statesize import Convolution, Dense, Recurrence, SoftmaxAttention, capture, measure
from statesize.errors import InputError
from statesize.measurement.columns import sinks
from statesize.measurement.settings import MARKED, Settings
from statesize.profiling import profile

LENGTH = 40


def attention_with_a_sink(column, share):
    """Rows that give a share of their weight to one column from its own position on."""
    g = torch.Generator().manual_seed(1)
    scores = torch.randn(LENGTH, LENGTH, generator=g, dtype=torch.float64).masked_fill(
        torch.ones(LENGTH, LENGTH).triu(1).bool(), -torch.inf
    )
    T = scores.softmax(-1)
    T[column:] *= 1 - share
    T[column:, column] += share
    return T


def entropy(block, power=1):
    return float(effective_rank(np.linalg.svd(block, compute_uv=False) ** power))


@pytest.mark.parametrize("column", [0, 5])
def test_share_position_and_entropies_are_those_of_the_dense_operator(column):
    T = attention_with_a_sink(column, 0.7)
    (sink,) = sinks(Dense(T[None, None]), 20)
    means = T.mean(0).numpy()
    assert sink.position == column == int(means.argmax())
    assert sink.share == pytest.approx(means[column])
    block = T[20:, :20].numpy()
    assert sink.without == pytest.approx(entropy(np.delete(block, column, 1)), rel=1e-4)
    assert sink.without > 1.5 * entropy(block)


@pytest.mark.parametrize(
    "operator",
    [
        Dense(-torch.eye(4)[None, None]),
        Dense(2 * torch.eye(4)[None, None]),
        Convolution(torch.ones(1, 1, 3), 4),
        Recurrence(torch.ones(1, 1, 4, 1), torch.ones(1, 1, 4, 1), torch.ones(1, 1, 4, 1)),
    ],
)
def test_what_is_no_attention_has_no_sinks(operator):
    assert sinks(operator, 2) is None


def first_column(length, share):
    T = torch.zeros(1, 1, length, length, dtype=torch.float64)
    T[..., 0] = share
    return sinks(Dense(T), length // 2)[0]


def test_a_sink_takes_more_than_a_fifth_and_more_than_twice_what_even_attention_gives_the_first_token():
    even = torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None]
    (sink,) = sinks(Dense(even[None, None]), 3)
    assert sink.share > 2 * MARKED
    assert math.isnan(sink.without)
    assert first_column(128, 0.2).share == MARKED
    twice = 2 * (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5 + 1 / 6) / 6
    for length, limit in ((6, twice), (128, 0.2)):
        assert math.isnan(first_column(length, limit * (1 - 1e-9 * (length == 6))).without)
        found = first_column(length, limit * (1 + 1e-9))
        assert (found.share, found.position, found.without) == (pytest.approx(limit), 0, 0.0)


def test_rows_may_be_rounded_and_long_sequences_are_left_out():
    even = torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None]
    assert [sinks(Dense(even[None, None] * most), 3) is None for most in (1.0008, 1.0012)] == [False, True]
    lengths = (4096, 4097)
    assert [sinks(SoftmaxAttention(*torch.zeros(2, 1, 1, n, 1), 1.0), 3) is None for n in lengths] == [False, True]


model_of = partial(language_model, vocabulary_size=16, width=8, heads=2, layers=1, key_size=4)


def test_a_profile_holds_them_and_other_mixers_have_none(tmp_path):
    texts = [list(range(12)), [3, 1, 4, 1, 5, 9]]
    one = profile(model_of("sa"), texts, output=tmp_path / "sa")
    node = one.mixer(one.mixers[0])
    assert node["sink_share"].sizes == {"sequence": 2, "head": 2}
    assert (node["sink_share"].values > 0).all()
    assert (node["sink_position"].values >= 0).all()
    (row,), (again,) = one.summary_rows(), type(one).load(tmp_path / "sa").summary_rows()
    assert row["sink_share"] == again["sink_share"] == pytest.approx(float(node["sink_share"].values.mean()))
    (other,) = profile(model_of("gla"), texts).summary_rows()
    assert math.isnan(other["sink_share"])
    assert other["without_sink"] == other["ess"]


def variants(operator, weights, skip_first, power):
    """Entropy-ESS of H_i diag(w) at the quarters of 21 tokens, of each unit, by numpy."""
    w = weights.numpy().copy()
    w[..., :skip_first] = 0
    means = []
    for unit, T in enumerate(operator.dense()[0].detach().double().numpy()):
        T = T * w[0, unit]
        means.append(np.mean([entropy(T[cut:, :cut], power) for cut in (5, 10, 15)]))
    return means


VARIANTS = (("values", 0, False), ("none", 2, True), ("values", 3, True))


@pytest.mark.few(3)
# Every variant of one operator, and the last, of all settings, of every other.
@pytest.mark.parametrize(
    ("mixer", "weights", "skip_first", "squares"),
    [
        *(("gla", *variant) for variant in VARIANTS),
        *((mixer, *VARIANTS[-1]) for mixer in ("sa", "wla", "s6", "deltanet")),
    ],
)
def test_variants_in_a_profile_are_those_of_the_weighted_dense_operator(mixer, weights, skip_first, squares):
    model = model_of(mixer).double()
    ids = torch.randint(0, 11, (1, 21), generator=torch.Generator().manual_seed(4))
    result = profile(model, ids, settings=Settings(weights=weights, skip_first=skip_first, squares=squares))
    (item,) = capture(model, ids)
    operator = item.operator
    w = torch.ones(1, item.units, 21, dtype=torch.float64)
    if weights == "values":
        w = item.values().double().norm(dim=-1).detach()
    node = result.mixer(result.mixers[0])
    expected = variants(operator, w, skip_first, 2 if squares else 1)
    np.testing.assert_allclose(node["variant_entropy"].values[0], expected, rtol=1e-4)
    plain = variants(operator, torch.ones_like(w), 0, 1)
    np.testing.assert_allclose(node["few_cuts_entropy"].values[0], plain, rtol=1e-4)
    # What the default says is not touched.
    whole = profile(model, ids)
    np.testing.assert_array_equal(node["entropy"].values, whole.mixer(whole.mixers[0])["entropy"].values)
    if not squares:
        taken = measure(item.weighted(weights, skip_first).operator, positions=(5, 10, 15)).entropy.mean(-1)[0]
        np.testing.assert_allclose(taken, expected, rtol=1e-3)


def test_measure_takes_weights_and_leaves_out_first_columns():
    operator = random_operator("attention", 0, 30)
    w = torch.rand(30, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    taken, plain = (measure(operator, positions=[10], **how) for how in ({"weights": w, "skip_first": 2}, {}))
    T = operator.dense() * w
    T[..., :2] = 0
    assert float(taken.entropy[0]) == pytest.approx(entropy(T[10:, :10].numpy()), rel=1e-4)
    assert float(taken.entropy[0]) != pytest.approx(float(plain.entropy[0]), rel=1e-3)


@pytest.mark.parametrize(
    "weights",
    [
        *(-torch.ones(5), torch.full((5,), math.nan), torch.ones(4), ["a"] * 5, [[1, 2], [3]], [1j, 1, 1, 1, 1], "a"),
        *(np.array([None] * 5), torch.ones(5, dtype=torch.complex64)),
    ],
)
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(InputError):
        measure(torch.eye(5), weights=weights)


@pytest.mark.parametrize("batch", [(), (1,), (2,)])
@pytest.mark.parametrize("length", [9, 400])
def test_weights_with_another_batch_than_the_operator_are_refused(batch, length):
    A, B, C = torch.rand(3, *batch, length, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operators = (
        Recurrence(A, B, C),
        Convolution(A[..., :5, 0], length),
        SoftmaxAttention(A, B, 1.0),
        Dense(torch.eye(length, dtype=torch.float64).expand(*batch, -1, -1)),
    )
    for operator in operators:
        with pytest.raises(InputError):
            measure(operator, weights=torch.ones(4, length), positions=[length // 2])
        assert measure(operator, weights=torch.ones(length), positions=[length // 2]).entropy.shape == (*batch, 1)
