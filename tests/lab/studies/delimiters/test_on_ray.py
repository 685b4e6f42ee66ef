"""A study of delimiters on a real Ray of this machine: the numbers of one process, also when actors are killed."""

import os
import signal
import time
from functools import partial

import pytest
import torch

from statesize.cli import main
from statesize.errors import FileError, InputError
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.lab.studies.delimiters.corpus import DocumentCorpus
from statesize.lab.studies.delimiters.dips import measure_dips
from statesize.lab.studies.delimiters.parts import SEQUENCES
from statesize.lab.studies.delimiters.sequences import OBSERVED, Windows
from statesize.models.load import load_model
from statesize.parallel.ray import available_cores, ray_workers

WINDOWS = Windows(4, 4, margin=2)
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


@pytest.fixture
def crew(ray):
    """Workers of the Ray that runs."""
    return ray_workers


@pytest.fixture(scope="module")
def corpus():
    documents = torch.randint(1, 25, (SEQUENCES + 12, 14), generator=torch.Generator().manual_seed(0))
    return DocumentCorpus(tuple(documents), 0, None, frozenset({0}))


def test_errors_are_those_of_one_process(crew, corpus, tmp_path):
    load = partial(load_model, "/no/such/model")
    with pytest.raises(FileError, match="got '/no/such/model', which is no folder"):
        measure_dips("one", load, corpus, WINDOWS, folder=tmp_path, crew=crew)
    with pytest.raises(InputError, match="no machine of the Ray cluster has the 1000 cores"):
        measure_dips("one", load, corpus, WINDOWS, folder=tmp_path, crew=partial(crew, cpus=1000))


def test_parts_that_are_gone_when_they_are_read_are_told(crew, corpus, tmp_path):
    folder = tmp_path / "parts"

    def remove(condition, done, total):
        for path in folder.iterdir():
            path.unlink()

    options = {"channels": 1, "conditions": (OBSERVED,), "on_progress": remove, "folder": folder, "crew": crew}
    with pytest.raises(FileError, match=r"parts was changed while it was in use: sequences 0 to .* is missing"):
        measure_dips("one", lambda: load_model("recall-gla").model, corpus, WINDOWS, **options)


def test_the_command_measures_on_ray_and_tells_what_a_model_refuses(crew, tmp_path, capsys):
    folder = tmp_path / "model"
    config = ModelConfig(mixer="gla", vocabulary_size=1024, width=8, heads=2, layers=1, key_size=2)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    model.get_parameter("layers.0.mixer.projection.weight").data.fill_(3e38)
    save_checkpoint(model, folder)
    (folder / "tokenizer.json").write_text(zoo.tokenizer().to_str(), encoding="utf-8")
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(document[:120] for document in zoo.documents()[:12]), encoding="utf-8")
    command = ["study", "delimiters", str(folder), "--text", str(text), "--window", "4", "--channels", "1"]
    assert main([*command, "--output", str(tmp_path / "study"), "--ray"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "statesize: error: Mixer layers.0.mixer" in err
    assert "Traceback" not in err


# Last, because what Ray says of the actors that are killed comes late, and would stand in the output of another test.
@pytest.mark.slow
def test_actors_are_killed_in_the_middle(crew, corpus, tmp_path):
    loads, told, killed = tmp_path / "loads", [], []
    loads.mkdir()

    # Pickled by value, as Ray's processes do not have the modules of the tests.
    def load():
        (loads / f"{time.monotonic_ns():020d}-{os.getpid()}").touch()
        model = load_model("recall-gla").model
        # So that parts are still missing when the first one comes.
        model.register_forward_pre_hook(lambda *_: time.sleep(0.2))
        return model

    def kill(condition, done, total):
        told.append((condition, done, total))
        if len(told) == 1:
            # All that have the model, so that the rest waits for new ones.
            for path in loads.iterdir():
                os.kill(int(path.name.partition("-")[2]), signal.SIGKILL)
                killed.append(path)

    options = {"channels": 1, "conditions": (OBSERVED, "removed")}
    folder = tmp_path / "parts"
    found = measure_dips("one", load, corpus, WINDOWS, folder=folder, crew=crew, on_progress=kill, **options)
    assert len(told) == 4
    assert 1 <= len(killed) <= available_cores()
    assert len(list(loads.iterdir())) > len(killed)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = load_model("recall-gla").model
        alone = measure_dips("one", model, corpus, WINDOWS, **options)
        resumed = measure_dips("one", model, corpus, WINDOWS, folder=folder, on_progress=print, **options)
    finally:
        torch.set_num_threads(before)
    assert (found.dips, found.curve) == (alone.dips, alone.curve) == (resumed.dips, resumed.curve)
