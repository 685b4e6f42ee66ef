"""Long runs: killed, damaged, changed, and in the end the same profile."""

import importlib.util
import os
import shutil
import sys

import pytest
import torch
from oracles.profiles import same

from statesize.errors import FileError, StatesizeWarning
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings
from statesize.models.load import model_facts
from statesize.profiling import Profile, profile

SMALL = ModelConfig("gla", layers=2, key_size=3, heads=2, width=8, vocabulary_size=16)
TEXTS = [list(range(12)), [3, 1, 4, 1, 5, 9, 2], list(range(9))]


def build():
    return LanguageModel(SMALL, torch.Generator().manual_seed(0))


class Stop(Exception):
    """An interrupt at a chosen unit."""


def stopped(model, sequences, output, after, **options):
    told = []

    def stop(progress):
        told.append(progress)
        if len(told) == after:
            raise Stop

    with pytest.raises(Stop):
        profile(model, sequences, output=output, on_progress=stop, **options)


def resumed(model, output, sequences=TEXTS, **options):
    """Which (sequence, mixer) were not measured again."""
    told = []
    result = profile(model, sequences, output=output, on_progress=told.append, **options)
    return result, [(step.sequence, step.mixer) for step in told if step.resumed]


def test_interrupted_in_the_middle_of_a_sequence(tmp_path):
    stopped(build(), TEXTS, tmp_path / "out", after=3)
    result, kept = resumed(build(), tmp_path / "out")
    assert kept == [(0, 0), (0, 1), (1, 0)]
    assert same(result, profile(build(), TEXTS))
    assert os.listdir(tmp_path) == ["out"]


def changed_weight(model):
    with torch.no_grad():
        model.embedding.weight[0, 0] += 1e-6
    return model


def changed_buffer(model):
    # Not part of the state_dict, as the frequencies of rotary embeddings.
    model.register_buffer("frequencies", torch.ones(2), persistent=False)
    return model


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ended")
    stopped(build(), TEXTS, folder / "out", after=5)
    return folder


@pytest.fixture
def ended_at_five(ended, tmp_path):
    """A run that was ended at its fifth unit, to be changed."""
    shutil.copytree(ended, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (changed_weight, {}),
        (changed_buffer, {}),
        (LanguageModel.double, {}),
        (LanguageModel.eval, {"settings": Settings(past=2)}),
        (LanguageModel.eval, {"sequences": [ids[::-1] for ids in TEXTS]}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_has_changed_is_measured_anew(ended_at_five, tmp_path, change, options):
    result, kept = resumed(change(build()), tmp_path / "out", **options)
    assert kept == []
    if not options:
        # What was kept of another run would be seen in the numbers of another model.
        assert same(result, profile(change(build()), TEXTS))


@pytest.mark.few(1)
@pytest.mark.parametrize("damage", [pytest.param("cut", marks=pytest.mark.slow), "bit", "delete", "note"])
def test_damaged_units_are_done_again(ended_at_five, tmp_path, damage):
    output = tmp_path / "out"
    path = sorted((tmp_path / "out.units").glob("0*/*.end" if damage == "note" else "0*/*.unit"))[-1]
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    elif damage == "bit":
        path.write_bytes(content[:300] + bytes([content[300] ^ 1]) + content[301:])
    else:
        path.write_bytes(content[:-9])
    result, kept = resumed(build(), output)
    assert len(kept) == (5 if damage == "note" else 4)
    assert same(result, profile(build(), TEXTS))


MODULE = """
from statesize.lab.mixers import LanguageModel

class Own(LanguageModel):
    factor = 1
"""


def of_file(path, text, monkeypatch):
    """A model of a class that stands in a file."""
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module.Own(SMALL, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("change", "kept"), [("", 3), ("    factor = 2", 0)])
def test_a_class_is_known_by_its_file(tmp_path, monkeypatch, change, kept):
    path = tmp_path / "own_model.py"
    stopped(of_file(path, MODULE, monkeypatch), TEXTS, tmp_path / "out", after=3)
    again = of_file(path, MODULE + change, monkeypatch)
    result, found = resumed(again, tmp_path / "out")
    assert len(found) == kept
    assert same(result, profile(again, TEXTS))


def test_a_class_without_a_file_is_measured_anew(tmp_path):
    def made():
        held = {"__name__": "cell"}
        exec(MODULE, held)  # noqa: S102
        return held["Own"](SMALL, torch.Generator().manual_seed(0))

    with pytest.warns(StatesizeWarning, match="no source file") as told:
        stopped(made(), TEXTS, tmp_path / "out", after=3)
    assert len(told) == 1
    with pytest.warns(StatesizeWarning):
        result, found = resumed(made(), tmp_path / "out")
    assert found == []
    assert same(result, profile(made(), TEXTS))


def test_a_finished_profile_is_not_measured_again(tmp_path):
    first = profile(build(), TEXTS, output=tmp_path / "out")
    again, _ = resumed(build(), tmp_path / "out")
    assert again.tree.attrs["seconds"] == first.tree.attrs["seconds"]
    assert first.tree.attrs["weights_sha256"] == model_facts(build())["weights"]
    told = []
    asked = {"output": tmp_path / "out", "settings": Settings(past=2)}
    with pytest.warns(StatesizeWarning):
        profile(build(), TEXTS, **asked, on_progress=told.append)
    assert len(told) == 6
    assert os.listdir(tmp_path) == ["out"]
    kept = Profile.load(tmp_path / "out").to_xarray()
    with pytest.raises(FileError):
        profile(build(), TEXTS, output=tmp_path / "out", name="other")
    assert Profile.load(tmp_path / "out").to_xarray().identical(kept)


def test_units_that_are_removed_under_the_run(tmp_path):
    output, told = tmp_path / "out", []

    def remove(progress):
        told.append(progress)
        if len(told) == 4:
            for path in (tmp_path / "out.units" / "000000").iterdir():
                path.unlink()

    with pytest.raises(FileError):
        profile(build(), TEXTS, output=output, on_progress=remove)
    assert not output.exists()
    result, kept = resumed(build(), output)
    assert kept == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert same(result, profile(build(), TEXTS))
