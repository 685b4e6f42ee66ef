"""Tasks are resumed from their parts."""

from functools import partial

import pytest

from statesize.errors import StatesizeError
from statesize.io.files import Parts
from statesize.parallel.ray import OnRay, RayCluster
from statesize.parallel.threads import Step, one_by_one, run


def doubled(task):
    if task == 3:
        raise StatesizeError("no three")
    yield 2 * task


def stored(folder):
    return Parts(folder, ".number", lambda value: str(value).encode(), int)


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_stored_is_not_computed_again_and_an_error_is_not_stored(kept, tmp_path):
    folder, executor = tmp_path / "parts" if kept else None, partial(one_by_one, doubled)
    parts = stored(folder)
    assert [done.get() for done in run([1, 2], executor, parts, str)] == [2, 4]
    parts = stored(folder) if kept else parts
    done = list(run([3, 2, 1, 0], executor, parts, str))
    # What is stored comes first.
    assert [(step.task, step.value, step.resumed) for step in done] == [
        (2, 4, True), (1, 2, True), (3, None, False), (0, 0, False),
    ]  # fmt: skip
    assert str(done[2].error) == "no three"
    assert [parts.read(str(task)) for task in range(4)] == [0, 2, 4, None]


def test_steps_are_told_as_they_come_and_not_stored(tmp_path):
    step = Step()

    def counted(task):
        yield step
        yield 2 * task

    parts = stored(tmp_path)
    parts.write("2", 4)
    done = run(iter([1, 2, 3]), partial(one_by_one, counted), parts, str)
    assert [(part.task, part.value) for part in done] == [(2, 4), (1, step), (1, 2), (3, step), (3, 6)]
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["1", "2", "3"]


def test_no_worker_is_started_where_all_is_stored(tmp_path):
    list(run([1], partial(one_by_one, doubled), stored(tmp_path), str))
    # Without a connection, it could start none.
    workers = OnRay(None, RayCluster(), None, 0)
    assert [done.value for done in run([1], workers, stored(tmp_path), str)] == [2]
