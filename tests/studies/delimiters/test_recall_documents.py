"""What models read if no text is given."""

import json

import pytest
import torch

from statesize import zoo
from statesize.errors import FileError
from statesize.studies.delimiters.recall_documents import default_texts, scored_tokens, trained_length
from statesize.tasks import build_task


def test_recall_documents_are_the_held_out_ones():
    task, tokenizer = build_task(zoo.record("recall-gla")["task"]), zoo.load("recall-gla")[1]
    texts = default_texts("recall-gla")
    assert len(texts) == task.held_out_sequences * task.documents
    inputs = next(task.held_out(1))[0][0]
    ids = [token for text in texts[: task.documents] for token in (*tokenizer.encode(text).ids, task.eos)]
    assert inputs.equal(torch.tensor(ids))


def test_others_read_prose():
    assert default_texts("gla") == default_texts("some/model") == zoo.documents()
    assert scored_tokens("gla") is None
    assert scored_tokens("recall-gla") == frozenset(range(12, 25))
    assert (trained_length("gla"), trained_length("recall-sa")) == (256, 116)


def test_a_folder_says_itself_what_it_was_trained_on(tmp_path):
    record = tmp_path / "training.json"
    record.write_text(json.dumps({"task": zoo.record("recall-la")["task"]}), encoding="utf-8")
    assert default_texts(str(tmp_path)) == default_texts("recall-la")
    assert trained_length(str(tmp_path)) == 116
    for other in ('{"task": {"name": "mqar"}}', "[]", '{"task": 3}', "no json"):
        record.write_text(other, encoding="utf-8")
        assert scored_tokens(str(tmp_path)) is None
    record.write_text('{"task": {"name": "rebinding", "keys": "many"}}', encoding="utf-8")
    with pytest.raises(FileError, match="no settings of re-binding recall"):
        default_texts(str(tmp_path))
