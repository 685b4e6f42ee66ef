"""The bundled models of re-binding recall and their records."""

import pytest

from statesize.lab import zoo
from statesize.lab.tasks import build_task
from statesize.lab.training import evaluate
from statesize.models.load import load_model, load_tokenizer

every_model = pytest.mark.parametrize("name", zoo.recall_names())


@every_model
def test_records_hold_what_the_bundled_weights_give(name):
    record, model = zoo.record(name), zoo.load(name)[0]
    found = evaluate(model, build_task(record["task"]), 64)
    kept = {key: found[key] for key in record["held_out"]}
    assert record["held_out"] == pytest.approx(kept, rel=1e-3, abs=1e-5)
    assert record["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert model.config.mixer == name.removeprefix("recall-")
    assert f"write_recall_model('{model.config.mixer}', " in record["command"]
    assert len(record["curve"]) == record["training"]["steps"] / 20


@every_model
def test_models_are_loaded_by_name_with_the_tokenizer_of_their_task(name):
    loaded = load_model(name)
    assert loaded.source == {"kind": "bundled"}
    task = build_task(zoo.record(name)["task"])
    for tokenizer in (loaded.tokenizer, load_tokenizer(name)[0]):
        assert tokenizer.encode("k0 v0 k11 none").ids == [0, task.keys, 11, task.none]
        assert tokenizer.token_to_id("<eos>") == task.none + 1
        assert tokenizer.get_vocab_size() == loaded.model.config.vocabulary_size == task.vocabulary_size + 1
        assert tokenizer.encode("word").ids == [task.vocabulary_size]
