"""The models of a study of delimiters, by name, and what they read if no text is given."""

import json
import shutil

import pytest
import torch

from statesize.errors import FileError
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.lab.studies.delimiters.subjects import default_texts, subjects
from statesize.lab.tasks import build_task


def test_folders_of_one_name_go_by_their_whole_paths(tmp_path):
    first, second, other = (str(tmp_path / name) for name in ("one/model", "two/model", "other"))
    config = ModelConfig(mixer="gla", vocabulary_size=1024, width=8, heads=2, layers=1, key_size=2)
    save_checkpoint(LanguageModel(config), tmp_path / "one" / "model")
    (tmp_path / "one" / "model" / "tokenizer.json").write_text(zoo.tokenizer().to_str(), encoding="utf-8")
    for copy in (second, other):
        shutil.copytree(first, copy)
    texts = ["one text", "another", "a third"]
    assert [one.name for one in subjects([first, other], texts, "eos", 10, {})] == ["model", "other"]
    assert [one.name for one in subjects([first, second], texts, "eos", 10, {})] == [first, second]


def test_recall_documents_are_the_held_out_ones():
    task, tokenizer = build_task(zoo.record("recall-gla")["task"]), zoo.load("recall-gla")[1]
    texts = default_texts("recall-gla")
    assert len(texts) == task.held_out_sequences * task.documents
    inputs = next(task.held_out(1))[0][0]
    ids = [token for text in texts[: task.documents] for token in (*tokenizer.encode(text).ids, task.eos)]
    assert inputs.equal(torch.tensor(ids))


def test_others_read_prose():
    assert default_texts("gla") == default_texts("some/model") == zoo.documents()
    text, recall = subjects(["gla", "recall-gla"], None, "eos", 10, {})
    assert (text.length, text.scored) == (256, None)
    assert (recall.length, recall.scored) == (116, frozenset(range(12, 25)))


def test_a_folder_says_itself_what_it_was_trained_on(tmp_path):
    record = tmp_path / "training.json"
    record.write_text(json.dumps({"task": zoo.record("recall-la")["task"]}), encoding="utf-8")
    assert default_texts(str(tmp_path)) == default_texts("recall-la")
    for other in ('{"task": {"name": "mqar"}}', "[]", '{"task": 3}', "no json"):
        record.write_text(other, encoding="utf-8")
        assert default_texts(str(tmp_path)) == zoo.documents()
    record.write_text('{"task": {"name": "rebinding", "keys": "many"}}', encoding="utf-8")
    with pytest.raises(FileError, match="no settings of re-binding recall"):
        default_texts(str(tmp_path))
