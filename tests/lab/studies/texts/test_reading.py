"""Runs of the studies of texts: their models by name, what these read, and keys that tell them apart."""

from pathlib import Path

import pytest
import torch

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.lab.studies.delimiters import Delimiters
from statesize.lab.studies.texts.documents import default_texts, rebinding_task
from statesize.lab.studies.texts.reading import TextGrid, train_recall
from statesize.lab.tasks import build_task


def runs_of(*models, **options):
    return Delimiters().runs(TextGrid(models=models, **options))


def test_models_go_by_names_that_differ(tmp_path):
    first, second, other = (str(tmp_path / name) for name in ("one/model", "two/model", "other"))
    config = ModelConfig(mixer="gla", vocabulary_size=4096, width=8, heads=2, layers=1, key_size=2)
    for folder in (first, second, other):
        save_checkpoint(LanguageModel(config), folder)
        Path(folder, "tokenizer.json").write_text(zoo.tokenizer().to_str(), encoding="utf-8")
    assert list(dict.fromkeys(run.label for run in runs_of(first, other))) == ["model", "other"]
    with pytest.raises(InputError):
        runs_of(first, second)


def test_equal_runs_have_equal_keys_and_others_not():
    keys = [
        runs_of(name, documents=few)[0].key
        for name, few in (("recall-gla", 100), ("recall-gla", 100), ("recall-la", 100), ("recall-gla", 50))
    ]
    keys += [runs_of(f"recall-gla-{seed}")[0].key for seed in (200, 200, 201)]
    assert (keys[0], keys[4]) == (keys[1], keys[5])
    assert len(set(keys)) == 5
    (run,) = runs_of("recall-gla-200")
    assert run.source == ("recall-gla", 200)


def test_recall_models_read_held_out_documents_and_others_prose():
    task, tokenizer = build_task(zoo.record("recall-gla")["task"]), zoo.load("recall-gla")[1]
    texts = default_texts("recall-gla")
    assert len(texts) == task.held_out_sequences * task.documents
    inputs = next(task.held_out(1))[0][0]
    ids = [token for text in texts[: task.documents] for token in (*tokenizer.encode(text).ids, task.none + 1)]
    assert inputs.equal(torch.tensor(ids))
    assert default_texts("gla") == default_texts("some/model") == zoo.documents()
    assert rebinding_task("gla") is None
    assert rebinding_task("recall-gla").length == 116


@pytest.mark.slow
def test_the_seed_of_the_bundled_model_gives_its_weights():
    bundled = zoo.load("recall-gla")[0].state_dict()
    for name, weight in train_recall("recall-gla", 0).state_dict().items():
        torch.testing.assert_close(weight, bundled[name], rtol=2**-10, atol=1e-6)
