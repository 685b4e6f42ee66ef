"""Settings: what a profile may be asked for, and what is refused by name."""

import numpy as np
import pytest
import torch
from torch import nn

import statesize as ss
from statesize.errors import InputError
from statesize.integrations.probe import Probe
from statesize.measurement.settings import DEFAULT_CUTS, Settings, all_but, checked_cuts
from statesize.measurement.statistics import are_spread


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *((given, 2) for given in (2, np.int64(2), torch.tensor(2))),
        *((given, (2, 9)) for given in (np.array([2, 9]), torch.tensor([2, 9]), range(2, 10, 7), (np.int64(9), 2))),
        ([9, 0, 2, 2], (2, 9)),
    ],
    ids=repr,
)
def test_a_number_or_a_list_of_positions(given, expected):
    assert Settings(positions=given).positions == expected


def test_thresholds_become_numbers():
    settings = Settings(tolerances=np.array([1e-3, 1e-1]), relative_tolerances=torch.tensor([0.5, 0.25]))
    assert settings.tolerances == (1e-3, 1e-1)
    assert settings.relative_tolerances == (0.5, 0.25)
    assert {type(threshold) for threshold in settings.tolerances} == {float}


@pytest.mark.parametrize(("longest", "tolerances"), [(1024, 10), (1025, 1), (None, 1)])
def test_short_texts_have_the_tolerances_of_a_report(longest, tolerances):
    settings = Settings().for_texts(longest)
    assert len(set(settings.relative_tolerances)) == len(settings.relative_tolerances) == tolerances
    assert settings.relative_tolerances[0] == 0.01
    assert settings.for_texts(longest) == settings
    assert Settings(relative_tolerances=(0.5,)).for_texts(longest).relative_tolerances == (0.5,)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(1, 1), (np.int64(5), 5), ("7", 7), ("4GB", 4 * 10**9), ("1.5 GiB", 3 * 2**29), (" 512 mb", 512 * 10**6)],
    ids=repr,
)
def test_memory(given, expected):
    assert Settings(memory=given).memory == expected


def test_settings_that_do_not_act_are_refused_by_name():
    settings = Settings(past=2, seed=1)
    with pytest.raises(InputError, match=r"^past"):
        settings.without("truncate", *all_but("seed"))
    assert settings.without("truncate", *all_but("seed", "past")) is settings


@pytest.mark.parametrize(
    ("options", "length", "expected"),
    [
        ({}, 5, (1, 2, 3, 4)),
        ({"positions": 3}, 6, (1, 3, 5)),
        ({"positions": [2, 7]}, 6, (2,)),
        ({"positions": [7]}, 6, None),
        ({"past": 3}, 6, (3, 4, 5)),
        ({"past": 3, "future": 2}, 6, (3, 4)),
        ({"past": 3, "future": 2, "positions": [2, 3, 5]}, 6, (3,)),
        ({"past": 3, "future": 2}, 4, None),
        ({"past": 6}, 6, None),
    ],
)
def test_positions_of_a_sequence(options, length, expected):
    cut = Settings(**options).cut(length)
    assert (None if cut is None else cut.positions) == expected


@pytest.mark.parametrize(
    ("name", "options"), [("past and future", {"past": 4, "future": 3}), ("skip_first", {"skip_first": 6})]
)
def test_windows_and_columns_to_skip_fit_into_the_longest_text(name, options):
    with pytest.raises(InputError, match=f"^{name}"):
        Settings(**options).check_reach(6)
    Settings(**options).check_reach(7)


def test_short_sequences_are_measured_at_all_cuts():
    for length in range(2, DEFAULT_CUTS + 2):
        assert Settings().cut(length).positions == tuple(range(1, length))
    assert len(Settings().cut(DEFAULT_CUTS + 2).positions) == DEFAULT_CUTS


@pytest.mark.parametrize("length", [*range(34, 300), 511, 512, 1000, 16_385])
def test_32_evenly_spaced_cuts_hold_the_middle_and_the_quarters(length):
    cuts = Settings().cut(length).positions
    assert len(set(cuts)) == DEFAULT_CUTS == len(cuts)
    assert 1 <= cuts[0] <= cuts[-1] < length
    assert {length // 4, length // 2, 3 * length // 4} <= set(cuts)
    assert np.ptp(np.diff(cuts)) <= 1
    assert are_spread(np.array(cuts), length - 1)


@pytest.mark.parametrize("length", [40, 90, 257])
@pytest.mark.parametrize(("past", "future"), [(1, 8), (8, 8), (20, None), (None, 30), (3, 17)])
def test_the_cuts_lie_where_windows_fit(length, past, future):
    cuts, fitting = (Settings(past=past, future=future, positions=one).cut(length).positions for one in (None, "all"))
    assert len(cuts) == min(DEFAULT_CUTS, len(fitting))
    assert set(cuts) <= set(fitting)
    assert np.ptp(np.diff(cuts)) <= 1
    assert (length // 2 in cuts) == (length // 2 in fitting)


def test_limits_by_default():
    settings = Settings()
    assert (settings.tolerances, settings.memory) == ((1e-3,), 2e9)
    ladder = [1e-2, 10**-0.5, 1e-1, 10**-1.5, 10**-2.5, 1e-3, 10**-3.5, 1e-4, 10**-4.5, 1e-5]
    assert list(settings.for_texts(1024).relative_tolerances) == pytest.approx(ladder)


def test_cuts_leave_a_token_to_predict():
    for asked, length, cuts in (
        *(({}, 8, (4,)), ({}, 4, (2,)), ({"positions": [6, 2]}, 8, (2, 6)), ({"positions": 2}, 8, (2, 5))),
        ({"positions": [6]}, 8, (6,)),
    ):
        assert checked_cuts(Settings(**asked), length) == cuts
    with pytest.raises(InputError):
        checked_cuts(Settings(), 3)
    with pytest.raises(InputError):
        checked_cuts(Settings(positions=[7]), 8)


@pytest.mark.parametrize(
    "run",
    [
        ss.profile, ss.network_ess, ss.truncate, ss.cache,
        lambda *_, settings: Probe(torch.arange(8)[None], settings=settings),
    ],
    ids=["profile", "network_ess", "truncate", "cache", "Probe"],
)  # fmt: skip
@pytest.mark.parametrize("given", [{"mixes": {"1": "enter"}}, {}, 5], ids=repr)
def test_what_are_no_settings_is_refused_by_name(run, given):
    with pytest.raises(InputError, match=r"^settings"):
        run(nn.Identity(), torch.arange(8)[None], settings=given)
