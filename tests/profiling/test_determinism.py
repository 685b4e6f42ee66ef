"""The same again gives the same bits; other numbers of threads and of processes give the same within the bounds."""

import functools

import pandas as pd
import pytest
import torch
from oracles.comparing import DIFFERENT, IDENTICAL, compare_profiles, compare_rows

import experiments.variation.mixers  # noqa: F401
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings
from statesize.profiling import RayCluster, profile

PATTERNS = ("sa,gla", "s6,la", "s4d,deltanet", "gla-s6,wla")


def measured(pattern, threads, **options):
    config = ModelConfig(pattern, vocabulary_size=64, width=16, heads=2, layers=2, key_size=8)
    model = LanguageModel(config, torch.Generator().manual_seed(1)).eval()
    ids = torch.randint(64, (1, 40), generator=torch.Generator().manual_seed(2))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return profile(model, ids, **options)
    finally:
        torch.set_num_threads(before)


def verdicts(one, other):
    return {compared.verdict for compared in compare_profiles(one, other)}


@functools.cache
def first(pattern, threads=1):
    """What the others are compared with."""
    return measured(pattern, threads)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("pattern", "threads"),
    [
        *((pattern, 1) for pattern in PATTERNS),
        *(pytest.param(pattern, 2, marks=pytest.mark.slow) for pattern in PATTERNS[:2]),
    ],
)
def test_a_profile_has_the_same_bits_again(pattern, threads):
    assert verdicts(first(pattern, threads), measured(pattern, threads)) == {IDENTICAL}


@pytest.mark.few(2)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_other_threads_and_less_memory_give_a_profile_within_the_bounds(pattern):
    table = first(pattern).to_dataframe()
    for other in (first(pattern, 2), measured(pattern, 3), measured(pattern, 1, memory=1_000_000)):
        assert DIFFERENT not in verdicts(first(pattern), other)
        pd.testing.assert_frame_equal(table, other.to_dataframe(), check_exact=False, rtol=1e-4, atol=1e-4)


def test_a_study_has_the_same_bits_again():
    # In several processes too: tests/lab/studies/engine/test_on_ray.py kills some of them meanwhile.
    from small_studies import GRID

    from statesize.lab.studies.engine.grid import training_runs
    from statesize.lab.studies.engine.training import train_and_measure

    one, other = (train_and_measure(training_runs(GRID)[0]) for _ in range(2))
    assert {found.verdict for found in compare_rows(one, other)} == {IDENTICAL}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_processes_on_ray_give_a_profile_within_the_bounds(tmp_path):
    pytest.importorskip("ray")
    from functools import partial

    from statesize.models.load import load_model
    from statesize.parallel.ray import ray_session
    from statesize.profiling.run import run_profile

    sequences = [list(range(40, 80)), list(range(30)), list(range(7, 39)), list(range(3, 43))]
    load = partial(load_model, "gla")
    here = profile(load().model, sequences)
    with ray_session():
        made = [run_profile(load, sequences, Settings(), cluster=RayCluster(cpus=cpus)) for cpus in (1, 2)]
    assert verdicts(here, made[0]) == {IDENTICAL}
    assert DIFFERENT not in verdicts(here, made[1])
