"""What a worker measures is what a profile measures."""

import weakref
from functools import partial

import pytest
import torch
from oracles.profiles import same

from statesize.adapters import Capture
from statesize.errors import StatesizeError
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings
from statesize.models.load import load_model
from statesize.parallel.threads import one_by_one
from statesize.profiling import profile
from statesize.profiling.profile_run import ProfileRun
from statesize.profiling.sequences import SequenceDone, SequenceTask, SequenceWork, loaded_work

SEQUENCES = [torch.arange(12), torch.tensor([3, 1, 4, 1, 5, 9, 2])]


@pytest.fixture
def model():
    config = ModelConfig(mixer="gla", vocabulary_size=16, width=8, heads=2, layers=2, key_size=3)
    return LanguageModel(config, torch.Generator().manual_seed(0))


def loaded(load, settings):
    work = loaded_work(load, settings, 12)
    return work, next(work("loading"))


def test_datasets_are_those_of_a_profile(model):
    settings = Settings(channels=1).for_texts(12)
    work, origin = loaded(lambda: model, settings)
    gathering = ProfileRun(settings, origin.key, SEQUENCES)
    gathering.measure(partial(one_by_one, work))
    assert same(gathering.profile(None, origin, None), profile(model, SEQUENCES, channels=1))


def test_what_was_measured_before_is_passed_over(model):
    request = SequenceTask(0, SEQUENCES[0], "key", 12)
    request.finished.add(request.part("layers.0.mixer"))
    first, second, end = SequenceWork(model, Settings())(request)
    assert (first.name, first.dataset, second.index, second.mixers) == ("layers.0.mixer", None, 1, 2)
    assert second.dataset.attrs["name"] == second.name == "layers.1.mixer"
    assert end == SequenceDone(("layers.0.mixer", "layers.1.mixer"), {})


def test_a_worker_with_another_model_is_refused(model):
    work, origin = loaded(lambda: model, Settings())
    with pytest.raises(StatesizeError):
        next(work(SequenceTask(0, SEQUENCES[0], "other", 12)))
    assert next(work(SequenceTask(0, SEQUENCES[0], origin.key, 12))).index == 0


def test_a_loaded_model_says_its_name_and_source():
    _, origin = loaded(lambda: load_model("gla"), Settings())
    assert (origin.attributes["model"], origin.attributes["source"]) == ("gla", {"kind": "bundled"})
    assert origin.bytes == sum(tensor.nbytes for tensor in zoo.load("gla")[0].parameters())


def test_a_layer_is_let_go_before_the_next_is_built(model, monkeypatch):
    made, build = [], Capture.__next__

    def building(capture):
        assert all(earlier() is None for earlier in made)
        captured = build(capture)
        made.append(weakref.ref(captured))
        return captured

    monkeypatch.setattr(Capture, "__next__", building)
    assert len(list(SequenceWork(model, Settings())(SequenceTask(0, SEQUENCES[0], "", 12)))) == 3
    assert len(made) == 2
