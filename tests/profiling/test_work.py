"""A mixer in blocks: the same numbers as at once, and never more at once than the memory allows."""

import math
import re

import numpy as np
import pytest
import torch
from oracles.attention_models import attention_model as family_model
from transformers import LlamaConfig, LlamaForCausalLM

from statesize.adapters import Captured
from statesize.errors import InputError
from statesize.measurement.measurement import measure
from statesize.measurement.settings import Settings
from statesize.operators import Dense, Recurrence
from statesize.profiling import profile
from statesize.profiling import work as planning
from statesize.profiling.work import (
    MemoryNeededError,
    captured_mixers,
    measure_mixer,
    operations_per_unit,
    plan_work,
)

LENGTH, UNITS = 24, 10


@pytest.fixture
def operator():
    generator = torch.Generator().manual_seed(0)
    key, query = torch.randn(2, 1, UNITS, LENGTH, 3, generator=generator, dtype=torch.float64)
    return Recurrence(torch.rand(1, UNITS, LENGTH, 1, generator=generator, dtype=torch.float64), key, query)


def captured(operator, sizes):
    def units_operator(units):
        built = operator[:, units]
        sizes.append(built.batch_shape[1])
        return built

    facts = {"multiplicity": 4, "state_bytes": 64, "operator_difference": math.nan, "agreement": None}
    return Captured("layer", "decay", units=UNITS, units_operator=units_operator, **facts)


def run(operator, sizes, **options):
    item, settings = captured(operator, sizes), Settings(**options)
    return measure_mixer(item, 0, plan_work(item, 0, LENGTH, LENGTH, settings), settings)


def test_blocks_give_the_numbers_of_the_definition(operator):
    sizes = []
    # About three units at a time.
    work = plan_work(captured(operator, []), 0, LENGTH, LENGTH, Settings())
    dataset = run(operator, sizes, memory=work.shared_bytes + 3 * work.unit_bytes + work.unit_bytes // 2)
    assert sorted(set(sizes)) == [1, 3]
    expected = measure(operator, engine="dense")
    for name in ("entropy", "count", "relative_count", "norm"):
        measured = dataset[name].isel(position=slice(1, None))
        np.testing.assert_allclose(measured, getattr(expected, name).numpy(), rtol=1e-5, atol=1e-6)
        assert not dataset[name].sel(position=0).any()
    np.testing.assert_array_equal(dataset["position"][1:], expected.positions)
    np.testing.assert_array_equal(dataset["ceiling"][0, 1:], expected.ceiling)
    assert np.isnan(dataset["faithfulness"])


def test_a_memory_that_is_too_small_for_one_unit_is_refused_before_it_is_made(operator):
    work = plan_work(captured(operator, []), 0, LENGTH, LENGTH, Settings())
    sizes, needed = [], work.shared_bytes + work.unit_bytes
    run(operator, sizes, memory=needed)
    assert set(sizes) == {1}
    sizes.clear()
    with pytest.raises(InputError, match=f"{math.ceil(needed / 10**6)}MB"):
        run(operator, sizes, memory=needed - 1)
    assert set(sizes) <= {1}


def attention_model(length, groups=8):
    """Softmax attention of transformers, which makes T of all heads at once."""
    shape = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = LlamaConfig(**shape, num_attention_heads=8, num_key_value_heads=groups, max_position_embeddings=length)
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def test_maps_of_all_heads_are_refused_before_they_are_made(monkeypatch):
    made, half = [], torch.ones(16, 16).tril()
    monkeypatch.setattr("statesize.adapters.kernels.probabilities.Mixing.of", lambda *_: made.append(1))
    # No band: two texts in a row.
    inputs = {"input_ids": torch.arange(32)[None], "attention_mask": torch.block_diag(half, half).bool()[None, None]}
    with pytest.raises(MemoryNeededError) as error:
        captured_mixers(attention_model(32), inputs, "all", Settings(memory=10_000))
    # Scores, their masked copy and their softmax of 8 heads in float64.
    needed = math.ceil(2.4 * 8 * 32 * 32 * 8 / 10**6)
    assert str(error.value).startswith(f"memory must be at least {needed}MB for mixer ")
    assert not made


@pytest.mark.parametrize("operator_type", [Recurrence, Dense])
def test_a_costly_mixer_is_sampled_unless_all_are_asked_for(operator, monkeypatch, operator_type):
    operator = operator if operator_type is Recurrence else Dense(operator.dense())
    settings = Settings()
    one = operations_per_unit(operator, settings.cut(LENGTH))
    monkeypatch.setattr(planning, "MOST_OPERATIONS", 9.5 * one)

    def measured(**options):
        return len(plan_work(captured(operator, []), 0, LENGTH, LENGTH, Settings(**options)).sample.units)

    assert measured() == 9
    assert measured(channels="all") == UNITS
    assert measured(channels=2) == 2
    # The sequence that decides is the longest, whichever is measured.
    monkeypatch.setattr(planning, "MOST_OPERATIONS", 10.5 * one)
    assert measured() == UNITS
    longer = plan_work(captured(operator, []), 0, LENGTH, 2 * LENGTH, settings)
    assert len(longer.sample.units) == 8


def random_ids(length):
    return torch.randint(0, 32, (1, length), generator=torch.Generator().manual_seed(2))


def test_groups_that_do_not_fit_are_left_out_with_the_reason():
    found = profile(
        attention_model(512, 4), random_ids(512), channels=2, positions="all", memory="20MB", on_progress=lambda _: None
    )
    (name,) = found.mixers
    assert found.group(name) is None
    assert np.isfinite(found.mixer(name)["entropy"].values[..., 1:]).all()
    reason = str(found.causes[f"{name}#shared"])
    assert re.match(r"memory must be at least \d\dMB for mixer .*#shared", reason)


def test_maps_of_all_heads_need_not_fit():
    """Heads with a cap are measured from queries and keys: maps alone take 4 bytes × 32 × 200²."""
    model, ids = family_model("gemma2", num_attention_heads=32), random_ids(200)
    options = {"positions": 3, "on_progress": lambda _: None}
    small, large = (profile(model, ids, memory=memory, **options) for memory in ("3MB", "1GB"))
    for name in large.mixers:
        entropies = [found.mixer(name)["entropy"].values for found in (small, large)]
        assert entropies[0].shape[1] == 32
        np.testing.assert_allclose(*entropies, rtol=1e-6)


def test_groups_are_measured_at_fewer_cuts_by_default():
    found = profile(attention_model(64, 4), random_ids(64), on_progress=lambda _: None)
    heads, groups = (node["position"].values[1:].tolist() for node in (found.mixer(0), found.group(0)))
    assert (len(heads), groups) == (32, [4, 12, 20, 28, 36, 44, 52, 60])


def test_groups_whose_maps_do_not_fit_are_measured_by_products():
    """At 700 of 768 positions the rows of two heads are fewer than the columns; all blocks have more rows than T."""
    model, ids = attention_model(768, 4), random_ids(768)
    options = {"positions": [200, 300, 700], "channels": 2, "on_progress": lambda _: None}
    by_maps, by_products = (profile(model, ids, memory=memory, **options) for memory in ("1GB", "25MB"))
    (name,) = by_maps.mixers
    exact, estimate = by_maps.group(name), by_products.group(name)
    assert by_products.attributes["skipped"] == {}
    assert estimate.sizes["group"] == exact.sizes["group"] == 1
    assert not exact.attrs["engine"].startswith("implicit")
    assert estimate.attrs["engine"].startswith("implicit")
    difference = np.abs(estimate["entropy"].values - exact["entropy"].values)
    assert (difference <= estimate["entropy_bound"].values + exact["entropy_bound"].values).all()
    np.testing.assert_allclose(estimate["norm"], exact["norm"], rtol=1e-6)
