"""Models that a training keeps on its way: of the steps asked for, the same in a run that was stopped and resumed."""

import pytest
import torch

from statesize.errors import FileError, InputError
from statesize.lab.mixers import LanguageModel, ModelConfig, load_checkpoint
from statesize.lab.tasks import MQAR
from statesize.lab.training import TrainingConfig
from statesize.lab.training.loop import train

TASK = MQAR(pairs=2, length=12, vocabulary_size=16)
CONFIG = TrainingConfig(steps=5, batch_size=2, evaluate_every=5, checkpoint_every=2)


def model():
    shape = ModelConfig(mixer="gla", vocabulary_size=16, width=8, heads=2, layers=1, key_size=4)
    return LanguageModel(shape, torch.Generator().manual_seed(0))


def kept(folder):
    found = {path.name: load_checkpoint(path).state_dict() for path in sorted(folder.glob("step-*"))}
    return {name: torch.cat([tensor.flatten() for tensor in weights.values()]) for name, weights in found.items()}


def test_the_first_every_so_many_and_the_last_are_kept(tmp_path):
    trained = model()
    train(trained, TASK, CONFIG, tmp_path / "run", keep_every=2)
    found = kept(tmp_path / "run")
    assert list(found) == ["step-000000", "step-000002", "step-000004", "step-000005"]
    for name, expected in (("step-000000", model()), ("step-000005", trained)):
        assert torch.equal(found[name], torch.cat([tensor.flatten() for tensor in expected.state_dict().values()]))


def test_a_resumed_run_keeps_the_same(tmp_path):
    train(model(), TASK, CONFIG, tmp_path / "whole", keep_every=2)

    def stop(record):
        if record.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model(), TASK, CONFIG, tmp_path / "stopped", on_progress=stop, keep_every=2)
    train(model(), TASK, CONFIG, tmp_path / "stopped", resume=True, keep_every=2)
    whole, stopped = kept(tmp_path / "whole"), kept(tmp_path / "stopped")
    assert list(whole) == list(stopped)
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_kept_models_of_another_run_are_in_the_way(tmp_path):
    (tmp_path / "run" / "step-000002").mkdir(parents=True)
    with pytest.raises(FileError, match=r"step-000002 is in the way"):
        train(model(), TASK, CONFIG, tmp_path / "run", keep_every=2)


def test_the_number_of_steps_is_checked(tmp_path):
    with pytest.raises(InputError, match="keep_every"):
        train(model(), TASK, CONFIG, tmp_path / "run", keep_every=0)
