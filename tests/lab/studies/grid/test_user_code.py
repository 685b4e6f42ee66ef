"""Mixers of one's own in studies: the same rows in every process, keys that follow the code, and errors in one line."""

import dataclasses
import sys

import pytest
import torch
from small_studies import GRID, RUNNING_AVERAGE

from statesize.errors import FileError, InputError
from statesize.lab.mixers import registry
from statesize.lab.studies.grid.executors import HERE, Runs, SentRun, local_executor
from statesize.lab.studies.grid.settings import parse_settings
from statesize.lab.studies.grid.user_code import UserModule, load_module, read_module, source_digest


@pytest.fixture(autouse=True)
def leave_the_registry(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", {})
    yield
    sys.modules.pop("statesize_user_module mine.py", None)


def loaded(source=RUNNING_AVERAGE):
    module = UserModule("mine.py", source)
    load_module(module)
    return module


def runs_of_ones_own():
    grid = GRID.replace('["la", "gla"]', '["average", "average,sa"]').replace("layers = 1", "layers = 2")
    return parse_settings(grid, "correlation").runs


def test_the_same_rows_in_another_process(without_time):
    module, runs = loaded(), runs_of_ones_own()[::3]
    here = {outcome.task.key: without_time(outcome.value) for outcome in HERE.run(runs)}
    assert {rows[-1]["mixer"] for rows in here.values()} == {"average", "average,sa"}
    assert all(row["run"] == key for key, rows in here.items() for row in rows)
    found = list(local_executor(1, module).run(runs))
    assert not any(outcome.error for outcome in found)
    assert {outcome.task.key: without_time(outcome.value) for outcome in found} == here


def test_a_key_follows_the_code():
    loaded()
    (first, *_), builtin = runs_of_ones_own(), parse_settings(GRID, "correlation").runs[0]
    loaded(RUNNING_AVERAGE.replace("0.9", "0.8"))
    changed = runs_of_ones_own()[0]
    assert changed == first
    assert changed.key != first.key
    assert parse_settings(GRID, "correlation").runs[0].key == builtin.key
    loaded()
    assert runs_of_ones_own()[0].key == first.key


def test_another_process_that_lacks_the_module_says_so(monkeypatch):
    module = loaded()
    sent = SentRun(0, "a run", runs_of_ones_own()[0].to_dict())
    sys.modules.pop("statesize_user_module mine.py")
    monkeypatch.setattr(registry, "_REGISTERED", {})
    with pytest.raises(InputError, match=r"got 'average'.*--module FILE"):
        next(Runs(None)(sent))
    assert next(Runs(module)(sent))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("self.scale * mixed", "mixed[:, 1:3] + hidden"), "RunningAverage of your own fails: RuntimeError"),
        (("return ss.Recurrence", "x = 1 / 0; return ss.Recurrence"), "ZeroDivisionError: division by zero (line "),
        (("ss.Recurrence(A=decay", "print or ss.Recurrence(A=decay"), "of your own fails: AttributeError"),
    ],
)
def test_a_mixer_that_fails_is_told_in_a_line(change, message):
    assert change[0] in RUNNING_AVERAGE
    loaded(RUNNING_AVERAGE.replace(*change))
    (outcome,) = HERE.run(runs_of_ones_own()[:1])
    assert message in str(outcome.error)
    assert "\n" not in str(outcome.error)


def test_an_operator_that_does_not_fit_is_no_divergence():
    shorter = "def operator(self, hidden):\n        return self.right(hidden[:, :3])\n\n    def right(self, hidden):"
    source = RUNNING_AVERAGE.replace("self.operator", "self.right").replace("def operator(self, hidden):", shorter)
    loaded(source)
    (outcome,) = HERE.run(runs_of_ones_own()[:1])
    assert "has length 3" in str(outcome.error)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_that_name", "the module mine.py fails: ModuleNotFoundError: No module named"),
        ("\n\n1 / 0", "ZeroDivisionError: division by zero (line 3)"),
        ("def", "SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_fails_is_told_in_a_line(source, message):
    with pytest.raises(InputError) as caught:
        loaded(source)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "statesize_user_module mine.py" not in sys.modules


def test_files(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(RUNNING_AVERAGE, encoding="utf-8")
    assert read_module(path) == UserModule("mine.py", RUNNING_AVERAGE)
    path.write_bytes(b"\xff")
    with pytest.raises(FileError, match=r"mine\.py cannot be read"):
        read_module(path)


def test_what_a_mixer_draws_follows_the_seed(without_time):
    # Its dropout draws from torch's default generator.
    loaded()
    run = runs_of_ones_own()[0]
    found = []
    for state in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(state)
            found.append(without_time(next(HERE.run([run])).value))
    first, again = found
    assert first == again
    other = dataclasses.replace(run, training=dataclasses.replace(run.training, seed=5))
    assert without_time(next(HERE.run([other])).value)[-1]["loss"] != first[-1]["loss"]


def test_a_module_is_executed_once_and_another_text_of_its_name_replaces_it(monkeypatch):
    monkeypatch.setattr(sys, "executed", [], raising=False)
    for source in ("first", "first", "second"):
        loaded(f"import sys\nsys.executed.append({source!r})")
    assert sys.executed == ["first", "second"]


def test_a_class_without_source_has_no_digest():
    assert source_digest(type("Made", (), {"__module__": "nowhere"})) == ""
    assert len(source_digest(UserModule)) == 16
