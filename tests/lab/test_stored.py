"""The digest by which a model is known again before it is loaded."""

import os

from statesize.lab.stored import stored_sha256


def test_folders_are_hashed_by_what_a_model_is_read_from(tmp_path):
    model = tmp_path / "model"
    (model / "part").mkdir(parents=True)
    (model / "config.json").write_text("{}", encoding="utf-8")
    first = stored_sha256(str(model))
    (model / "log.jsonl.bak").write_text("aside", encoding="utf-8")
    assert stored_sha256(str(model)) == first
    (model / "part" / "weights.safetensors").write_bytes(b"1")
    second = stored_sha256(str(model))
    (model / "part" / "weights.safetensors").rename(model / "weights.safetensors")
    third = stored_sha256(str(model))
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    fourth = stored_sha256(str(model))
    (model / "tokenizer.json").write_text("{}", encoding="utf-8")
    fifth = stored_sha256(str(model))
    (tmp_path / "tokenizer.json").write_text("[]", encoding="utf-8")
    assert stored_sha256(str(model)) == fifth
    assert len({first, second, third, fourth}) == 4


def test_a_file_is_hashed_anew_once_it_was_written_with_its_size_and_time_as_before(tmp_path):
    path = tmp_path / "model.gguf"
    found = []
    for content in (b"one", b"two", b"one"):
        (tmp_path / "next").write_bytes(content)
        os.utime(tmp_path / "next", (10**9, 10**9))
        (tmp_path / "next").replace(path)
        found.append(stored_sha256(str(path)))
    assert found[0] == found[2] != found[1]
    assert stored_sha256("org/model") is None
