"""Profiles against their repetitions: what is identical, what is within bounds, what is different."""

import math

import numpy as np
import pytest
import torch
from oracles.comparing import DIFFERENT, IDENTICAL, WITHIN, Compared, compare_profiles, compare_rows

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import Profile, profile

CONFIG = ModelConfig("gla,sa", vocabulary_size=32, width=8, heads=2, layers=2, key_size=4)
FIRST, SECOND = "layers.0.mixer", "layers.1.mixer"


@pytest.fixture(scope="module")
def before():
    return profile(LanguageModel(CONFIG, torch.Generator().manual_seed(0)), [list(range(12)), list(range(5, 12))])


def changed(before, edit):
    tree = before.to_xarray()
    edit(tree)
    return Profile(tree)


def verdict(before, edit, part=FIRST):
    compared = {one.part: one for one in compare_profiles(before, changed(before, edit))}
    assert all(one.verdict == IDENTICAL for name, one in compared.items() if name != part)
    return compared[part].verdict


def add(name, value, index=(0, 0, 3), mixer=FIRST):
    def edit(tree):
        tree[mixer][name].values[index] += value

    return edit


def both(*edits):
    def edit(tree):
        for one in edits:
            one(tree)

    return edit


def test_a_profile_equals_itself(before):
    assert compare_profiles(before, before) == [Compared(part, IDENTICAL) for part in ("tokens", FIRST, SECOND)]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (add("entropy", 1e-2), DIFFERENT),
        (both(add("entropy", 1e-2), add("entropy_bound", 2e-2)), WITHIN),
        (both(add("entropy", 1e-2), add("entropy_bound", 5e-3)), DIFFERENT),
        (add("entropy", np.nan), DIFFERENT),
        (both(*(add(name, 1, (0, 0, 3, 0)) for name in ("count", "lower", "upper"))), DIFFERENT),
        (both(*(add(name, -1, (0, 0, 3, 0)) for name in ("relative_count", "relative_lower"))), WITHIN),
        (both(add("norm", 1e-3), add("error_bound", 1e-3)), WITHIN),
        (both(add("norm", 1.0), add("error_bound", 1e-3)), DIFFERENT),
        (add("ceiling", 1, (0, 3)), DIFFERENT),
        (add("state_bytes", 1, (0,)), WITHIN),
    ],
)
def test_verdicts(before, edit, expected):
    assert verdict(before, edit) == expected


def test_rows_are_compared_run_by_run():
    def row(run="a", **values):
        return {"run": run, "seconds": 1.0, **values}

    before = [row(loss=1.0, accuracy=math.nan), row(loss=0.5), row("b", loss=2.0)]
    after = [row(loss=1.0, accuracy=math.nan, seconds=9.0), row(loss=0.5), row("b", loss=1.0)]
    assert [one.verdict for one in compare_rows(before, after)] == [IDENTICAL, DIFFERENT]
    assert [one.verdict for one in compare_rows(before, before[1:])] == [DIFFERENT, IDENTICAL]
    assert [one.part for one in compare_rows(before[:1], before[2:])] == ["a", "b"]
