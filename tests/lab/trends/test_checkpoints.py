"""The digest by which a series knows a checkpoint again."""

import pytest

from statesize.errors import FileError
from statesize.lab.trends.checkpoints import content_sha256


def test_folders_are_hashed_by_what_a_model_is_read_from(tmp_path):
    model = tmp_path / "model"
    (model / "part").mkdir(parents=True)
    (model / "config.json").write_text("{}", encoding="utf-8")
    first = content_sha256(model)
    (model / "log.jsonl.bak").write_text("aside", encoding="utf-8")
    assert content_sha256(model) == first
    (model / "part" / "weights.safetensors").write_bytes(b"1")
    second = content_sha256(model)
    (model / "part" / "weights.safetensors").rename(model / "weights.safetensors")
    third = content_sha256(model)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    fourth = content_sha256(model)
    (model / "tokenizer.json").write_text("{}", encoding="utf-8")
    fifth = content_sha256(model)
    (tmp_path / "tokenizer.json").write_text("[]", encoding="utf-8")
    assert content_sha256(model) == fifth
    assert len({first, second, third, fourth}) == 4


def test_what_is_not_there_cannot_be_hashed(tmp_path):
    with pytest.raises(FileError, match="none cannot be read"):
        content_sha256(tmp_path / "none")
