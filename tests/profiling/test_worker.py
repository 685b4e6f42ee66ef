"""What one process of many measures is what a profile measures."""

import pytest
import torch
from oracles.profiles import same

from statesize import zoo
from statesize.loading.models import load_model
from statesize.mixers import LanguageModel, ModelConfig
from statesize.profiling import profile
from statesize.profiling.gathering import Gathering, Origin
from statesize.profiling.worker import Asked, Worker
from statesize.results.settings import check_settings

SEQUENCES = [torch.arange(12), torch.tensor([3, 1, 4, 1, 5, 9, 2])]


@pytest.fixture
def model():
    config = ModelConfig(mixer="gla", vocabulary_size=16, width=8, heads=2, layers=2, key_size=3)
    return LanguageModel(config, torch.Generator().manual_seed(0))


def test_records_are_those_of_a_profile(model):
    settings = check_settings(channels=1)
    worker = Worker(lambda: model, torch.get_num_threads(), Asked(settings, None, 12))
    ready = worker.open()
    gathering = Gathering(settings, 2, None, None)
    for sequence, ids in enumerate(SEQUENCES):
        names, skipped = worker.begin(sequence, ids)
        assert (names, skipped) == (["layers.0.mixer", "layers.1.mixer"], {})
        gathering.sequences.append(ids)
        for index in range(len(names)):
            gathering.add(sequence, worker.next(names[:index]), index, len(names), resumed=False)
        assert worker.next(names) == {}
    origin = Origin(ready.name, ready.weights, ready.key, ready.source, torch.get_num_threads())
    assert same(gathering.profile(None, origin, None), profile(model, SEQUENCES, channels=1))


def test_what_was_measured_before_is_passed_over(model):
    worker = Worker(lambda: model, torch.get_num_threads(), Asked(check_settings(), None, 12))
    worker.open()
    worker.begin(0, SEQUENCES[0])
    assert worker.next(["layers.0.mixer"]).name == "layers.1.mixer"
    assert worker.next(["layers.0.mixer"]) == {}


def test_a_loaded_model_says_its_name_and_source():
    ready = Worker(lambda: load_model("gla"), torch.get_num_threads(), Asked(check_settings(), None, 12)).open()
    assert (ready.name, ready.source) == ("gla", {"kind": "bundled"})
    assert ready.bytes == sum(tensor.nbytes for tensor in zoo.load("gla")[0].parameters())
