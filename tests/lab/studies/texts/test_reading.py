"""Runs of the studies of texts: their models by name, what these read, and keys that tell them apart."""

import shutil

import pytest
import torch

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.lab.studies.delimiters import Delimiters
from statesize.lab.studies.texts.documents import default_texts, rebinding_task
from statesize.lab.studies.texts.reading import TextGrid, train_recall
from statesize.lab.tasks import build_task

STUDY = Delimiters()


def test_folders_go_by_names_that_differ(tmp_path):
    first, second, other = (str(tmp_path / name) for name in ("one/model", "two/model", "other"))
    config = ModelConfig(mixer="gla", vocabulary_size=4096, width=8, heads=2, layers=1, key_size=2)
    save_checkpoint(LanguageModel(config), tmp_path / "one" / "model")
    (tmp_path / "one" / "model" / "tokenizer.json").write_text(zoo.tokenizer().to_str(), encoding="utf-8")
    for copy in (second, other):
        shutil.copytree(first, copy)
    assert names(first, other) == ["model", "other"]
    with pytest.raises(InputError, match=r"models must be names, each of them once"):
        names(first, second)


def names(*models):
    runs = STUDY.runs(TextGrid(models=models))
    return list(dict.fromkeys(run.label for run in runs))


def test_equal_runs_have_equal_keys_and_others_not():
    keys = [STUDY.runs(TextGrid(few, (name,)))[0].key for name in ("recall-gla", "recall-la") for few in (100, 100, 50)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_a_model_stands_once():
    with pytest.raises(InputError, match=r"models must be names, each of them once, got \('sa', 'sa'\)"):
        STUDY.runs(TextGrid(models=("sa", "sa")))


def test_recall_documents_are_the_held_out_ones():
    task, tokenizer = build_task(zoo.record("recall-gla")["task"]), zoo.load("recall-gla")[1]
    texts = default_texts("recall-gla")
    assert len(texts) == task.held_out_sequences * task.documents
    inputs = next(task.held_out(1))[0][0]
    ids = [token for text in texts[: task.documents] for token in (*tokenizer.encode(text).ids, task.none + 1)]
    assert inputs.equal(torch.tensor(ids))


def test_a_name_with_a_seed_is_trained_as_the_bundled_model_was():
    (run,) = STUDY.runs(TextGrid(models=("recall-gla-200",)))
    assert run.source == ("recall-gla", 200)
    assert run.key == STUDY.runs(TextGrid(models=("recall-gla-200",)))[0].key
    assert run.key != STUDY.runs(TextGrid(models=("recall-gla-201",)))[0].key


@pytest.mark.slow
def test_the_seed_of_the_bundled_model_gives_its_weights():
    bundled = zoo.load("recall-gla")[0].state_dict()
    for name, weight in train_recall("recall-gla", 0).state_dict().items():
        torch.testing.assert_close(weight, bundled[name], rtol=2**-10, atol=1e-6)


def test_others_read_prose():
    assert default_texts("gla") == default_texts("some/model") == zoo.documents()
    assert rebinding_task("gla") is None
    assert rebinding_task("recall-gla").length == 116
