"""Callbacks in trainers whose model is shared out among ranks, or a replica on each: the main one measures and logs."""

import json

import pytest
from oracles import rank_work
from oracles.rank_work import on_ranks

pytestmark = pytest.mark.slow
_TIMES = {"run", "ess/share_of_time"}


def logged(folder):
    (path,) = folder.glob("**/statesize.jsonl")
    return [
        {name: value for name, value in json.loads(line).items() if name not in _TIMES}
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


@pytest.mark.parametrize("train", [rank_work.by_lightning, rank_work.by_trainer])
def test_readings_and_losses_are_those_of_a_model_that_each_rank_holds(train, tmp_path):
    pytest.importorskip("lightning" if train is rank_work.by_lightning else "accelerate")
    found = []
    for shared in (True, False):
        folder = tmp_path / str(shared)
        folder.mkdir()
        (main, losses), (other, same_losses) = on_ranks(train, str(folder), shared)
        assert (main, other, losses) == (True, False, same_losses)
        found.append((losses, logged(folder)))
    assert [line["step"] for line in found[0][1]] == [0, 2, 4]
    assert found[0] == found[1]
