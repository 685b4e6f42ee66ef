"""Tasks by name, and what is wrong with their numbers."""

import pytest

from statesize.errors import InputError
from statesize.lab.tasks import MQAR, Compression, Rebinding, SelectiveCopying, build_task


@pytest.mark.parametrize("built", [MQAR(5), SelectiveCopying(3, held_out_seed=4), Compression(4, 5), Rebinding(2)])
def test_settings_build_an_equal_task(built):
    assert build_task(built.settings()) == built


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "mqr"}, ["task name must be one of compression, mqar, ", "got 'mqr'"]),
        ({"pairs": 4}, ["task name must be one of ", "got None"]),
        ({"name": ["mqar"]}, ["task name must be one of ", "got ['mqar']"]),
        ({"name": "mqar", "pair": 4}, ["number of task mqar must be one of", "got 'pair'. Did you mean pairs?"]),
        ({"name": "mqar", "pairs": "4"}, ["pairs must be ", "whole number", "got '4'."]),
        ({"name": "mqar", "pairs": 40}, ["pairs must be at most 32", "got 40."]),
    ],
)
def test_settings_that_do_not_fit_are_one_clear_line(settings, words):
    with pytest.raises(InputError) as caught:
        build_task(settings)
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []
