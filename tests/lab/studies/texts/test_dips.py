"""Depths and intervals where both are known."""

import numpy as np
import pytest

from statesize.lab.studies.texts.dips import METRICS, Response, modulation

OFFSETS = (-4, -3, 0, 2, 3)
REFERENCES = np.array([True, True, False, False, True])


def response(at, events=200, noise=0.0, seed=0):
    """Heads of two layers, 10 away from the delimiter and `at` of that at it."""
    at = np.array(at, np.float64)
    values = np.full((events, len(at), len(OFFSETS)), 10.0)
    values[:, :, 2] *= at
    values += noise * np.random.default_rng(seed).normal(size=values.shape)
    layers = ("first", "first", "second")
    same = {metric: values.astype(np.float32) for metric in METRICS}
    return Response("delimiter", OFFSETS, REFERENCES, layers, "gla", same)


def test_a_depth_is_the_mean_of_heads_and_of_layers():
    whole = list(modulation(response([0.5, 0.7, 1.2]), "entropy"))
    assert (whole[0]["kind"], whole[0]["events"], whole[0]["reference"]) == ("gla", 200, pytest.approx(10))
    assert [dip["offset"] for dip in whole] == list(OFFSETS)
    # The layers' are .4 and -.2.
    assert [dip["depth"] for dip in whole] == pytest.approx([0, 0, 0.1, 0, 0])


def test_intervals_hold_the_depth_as_often_as_they_say():
    inside = 0
    for seed in range(100):
        dips = modulation(response([0.6, 0.8, 0.7], events=60, noise=2.0, seed=seed), "norm", seed)
        dip = next(dip for dip in dips if dip["offset"] == 0)
        inside += dip["low"] <= 0.3 <= dip["high"]
        assert dip["low"] < dip["depth"] < dip["high"]
    assert 88 <= inside <= 100


def test_heads_that_carry_nothing_are_left_out():
    one = response([0.5, 0.7, 0.5])
    for values in one.values.values():
        values[:, 1] = 0
    (depth,) = [dip["depth"] for dip in modulation(one, "tolerance") if dip["offset"] == 0]
    assert depth == pytest.approx(0.5)
