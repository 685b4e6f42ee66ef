"""The digest by which a series knows a checkpoint again."""

from statesize.lab.trends.checkpoints import folder_sha256


def test_folders_are_hashed_by_what_a_model_is_read_from(tmp_path):
    model = tmp_path / "model"
    (model / "part").mkdir(parents=True)
    (model / "config.json").write_text("{}", encoding="utf-8")
    first = folder_sha256(model)
    (model / "log.jsonl.bak").write_text("aside", encoding="utf-8")
    assert folder_sha256(model) == first
    (model / "part" / "weights.safetensors").write_bytes(b"1")
    second = folder_sha256(model)
    (model / "part" / "weights.safetensors").rename(model / "weights.safetensors")
    third = folder_sha256(model)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    fourth = folder_sha256(model)
    (model / "tokenizer.json").write_text("{}", encoding="utf-8")
    fifth = folder_sha256(model)
    (tmp_path / "tokenizer.json").write_text("[]", encoding="utf-8")
    assert folder_sha256(model) == fifth
    assert len({first, second, third, fourth}) == 4
