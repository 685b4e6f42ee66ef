"""How the bundled recall models are made."""

import dataclasses
import json

import torch
from tokenizers import Tokenizer

from benchmarks import recall_models
from benchmarks.recall_models import recall_config, recall_tokenizer, write_recall_model
from statesize.lab.mixers import load_checkpoint


def test_a_model_is_written_with_its_record(tmp_path, monkeypatch):
    monkeypatch.setattr(recall_models, "TRAINING", dataclasses.replace(recall_models.TRAINING, steps=20, batch_size=4))
    monkeypatch.setattr(recall_models, "TASK", dataclasses.replace(recall_models.TASK, held_out_sequences=8))
    threads = torch.get_num_threads()
    record = write_recall_model("gla", tmp_path)
    assert torch.get_num_threads() == threads
    assert json.loads((tmp_path / "recall-gla" / "training.json").read_text()) == record
    assert [point["step"] for point in record["curve"]] == [20]
    assert record["held_out"].keys() == {"loss", "accuracy", "chance", "sequence_accuracy"}
    model = load_checkpoint(tmp_path / "recall-gla")
    assert model.config == recall_config("gla")
    tokenizer = Tokenizer.from_file(str(tmp_path / "recall-gla" / "tokenizer.json"))
    assert tokenizer.get_vocab() == recall_tokenizer().get_vocab()
    assert tokenizer.get_vocab_size() == model.config.vocabulary_size
    other = write_recall_model("gla", tmp_path, seed=3)
    assert other["command"].endswith("write_recall_model('gla', FOLDER, 3)\"")
    assert (other["training"]["seed"], other["curve"] == record["curve"]) == (3, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recall-gla", "recall-gla-3"]
