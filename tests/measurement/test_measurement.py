import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.operators import random_recurrence

from statesize.errors import EngineError, InputError
from statesize.measurement.measurement import hankel_singular_values, measure
from statesize.operators import Dense, Recurrence, StateSpace
from statesize.spectra.dispatch import ENGINES

seeds = st.integers(0, 2**31)
engines = st.sampled_from(("dense", "exact"))
FOR_RECURRENCES = [
    name
    for name, engine in ENGINES.items()
    if engine.operators not in ("convolutions", "softmax attention, also of several readouts, and derivatives")
]


@pytest.mark.parametrize("engine", ["exact", "all_cuts"])
def test_counts_of_what_is_left_open_end_at_the_ceiling(engine: str) -> None:
    g = torch.Generator().manual_seed(0)
    B, C = torch.randn(1, 3, generator=g, dtype=torch.float64), torch.randn(2, 1, generator=g, dtype=torch.float64)
    space = StateSpace(torch.full((1, 1), 0.9, dtype=torch.float64), B, C, length=33)
    found = measure(space, [1e-19], [1e-2, 1e-10, 1e-14], positions=[11], engine=engine)
    assert found.ceiling.tolist() == [1]
    for counts in (found.lower, found.count, found.upper, found.relative_count, found.relative_upper):
        assert bool((counts <= 1).all())
    assert found.relative_lower.tolist() == [[1, 1, 1]]


@given(seeds, st.integers(2, 24), st.integers(1, 6), engines)
def test_a_minimal_recurrence_fills_its_ceiling(seed: int, length: int, states: int, engine: str) -> None:
    recurrence = random_recurrence("orthogonal", seed, length, states)
    found = measure(recurrence, relative_tolerances=(1e-11,), outputs=("counts",), engine=engine)
    assert torch.equal(found.relative_count.squeeze(-1), found.ceiling)


def test_shapes_with_batch_tolerances_and_positions() -> None:
    recurrence = random_recurrence("full", 0, 9, 2, batch=(2, 3))
    found = measure(recurrence, tolerances=(1e-3, 1e-2), relative_tolerances=(0.1, 0.2, 0.3), positions=4)
    assert found.positions.tolist() == [2, 4, 6, 8]
    assert found.count.shape == found.lower.shape == found.upper.shape == (2, 3, 4, 2)
    assert found.relative_count.shape == (2, 3, 4, 3)
    assert found.entropy.shape == found.norm.shape == found.error_bound.shape == (2, 3, 4)
    assert found.ceiling.tolist() == [2, 2, 2, 1]


@pytest.mark.few(8)
@pytest.mark.parametrize("engine", FOR_RECURRENCES)
@pytest.mark.parametrize("scale", [1e-170, 1e-120, 1e120, 1e140])
def test_scales_beyond_what_can_be_squared(engine: str, scale: float) -> None:
    base = random_recurrence("diagonal", 0, 14, 3, batch=(2,))
    factor = torch.tensor([1.0, scale], dtype=torch.float64)[:, None, None]
    found = measure(Recurrence(base.A, base.B * factor, base.C), (scale * 0.1,), engine=engine)
    expected = measure(base, (0.1,), engine="dense")
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.norm[1] / scale, expected.norm[1])
    assert torch.equal(found.count[1], expected.count[1])
    assert bool((found.error_bound[1] >= 1e-17 * expected.norm[1] * scale).all())


@pytest.mark.parametrize("engine", FOR_RECURRENCES)
def test_growth_is_followed_as_far_as_float64_reaches(engine: str) -> None:
    ones = torch.ones(40, 1, dtype=torch.float64)
    assert measure(Recurrence(1e4 * ones, ones, ones), engine=engine).relative_count.squeeze(-1).tolist() == [1] * 39
    with pytest.raises(InputError):
        measure(Recurrence(1e20 * ones, ones, ones), engine=engine)


@pytest.mark.parametrize("engine", FOR_RECURRENCES)
def test_operators_with_gradients_are_measured_like_others(engine: str) -> None:
    recurrence = random_recurrence("diagonal", 0, 12, 3, batch=(2,))
    leaves = [part.clone().requires_grad_() for part in (recurrence.A, recurrence.B, recurrence.C)]
    found, expected = measure(Recurrence(*leaves), engine=engine), measure(recurrence, engine=engine)
    assert torch.equal(found.count, expected.count)
    torch.testing.assert_close(found.entropy.detach(), expected.entropy)
    # Bounds are plain numbers, whatever the operator.
    assert not any(bound.requires_grad for bound in (found.error_bound, found.entropy_bound))


@pytest.mark.parametrize("engine", ["dense", "exact"])
@pytest.mark.parametrize("weights", [None, torch.rand(40, generator=torch.Generator().manual_seed(1))])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_products_in_a_low_precision_are_those_of_float64(dtype, weights, engine) -> None:
    g = torch.Generator().manual_seed(0)
    key, query = (torch.nn.functional.normalize(torch.randn(40, 5, generator=g), dim=-1).to(dtype) for _ in range(2))
    beta, decay = torch.rand(40, generator=g).to(dtype), torch.full((40,), 0.95, dtype=dtype)
    exact = Recurrence.delta_rule(key.double(), beta.double(), query.double(), decay.double()).dense()
    w = torch.ones(40, dtype=dtype) if weights is None else weights.to(dtype)
    found = measure(
        Recurrence.delta_rule(key, beta, query, decay),
        positions=[20],
        outputs=("values",),
        engine=engine,
        weights=None if weights is None else w,
    )
    sigma = torch.linalg.svdvals((exact * w.double())[20:, :20])[: found.values.shape[-1]]
    torch.testing.assert_close(found.values[0], sigma, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("outputs", value) for value in (("rank",), (), torch.tensor(2), [np.ones(2)])),
        *(("tolerances", (-1.0,)), ("relative_tolerances", "a"), ("positions", 2.5)),
    ],
)
def test_bad_input_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^{name} must be .*got "):
        measure(Dense(torch.eye(4)), **{name: value})


def test_what_is_no_operator_is_refused() -> None:
    for call in (measure, hankel_singular_values):
        with pytest.raises(InputError):
            call([[1.0, 0.0], [1.0, 1.0]])
    with pytest.raises(EngineError):
        hankel_singular_values(Dense(torch.eye(4)), engine="all_cuts")


@pytest.mark.parametrize("kind", [np.int64, np.int8, torch.tensor])
def test_windows_are_whole_numbers_of_any_kind(kind) -> None:
    recurrence, windows = random_recurrence("diagonal", 0, 20, 3), {"past": 3, "future": 2}
    expected = measure(recurrence, **windows)
    found = measure(recurrence, **{name: kind(size) for name, size in windows.items()})
    assert torch.equal(found.norm, expected.norm)
    assert torch.equal(found.ceiling, expected.ceiling)
    assert (found.past, found.future) == (expected.past, expected.future)


def test_what_has_no_entries_or_no_entropies_can_be_printed() -> None:
    assert "batch shape: (0,)" in repr(measure(torch.rand(0, 4, 4).tril()))
    assert repr(measure(torch.rand(4, 4).tril(), outputs="counts")).endswith("next: .count")
