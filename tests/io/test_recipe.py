"""What a result carries so that it can be repeated."""

from pathlib import Path

import pytest
import torch

from statesize.errors import FileError
from statesize.io.recipe import Recipe, content_sha256, make_recipe, read_json, versions, write_recipe


def test_every_option_is_spelt_out_and_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("words", encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    options = {
        "text": [Path("text.txt")],
        "max_tokens": 512,
        "window": None,
        "allow_pickle": False,
        "trust_remote_code": True,
        "output": Path("result"),
        "ray": "auto",
        "threads": 3,
    }
    recipe = make_recipe(["study", "recall"], options, models=["gla", "model"], inputs={"more": "0" * 64})
    assert recipe.command == (
        "study",
        "recall",
        "gla",
        f"{tmp_path}/model",
        f"--text={tmp_path}/text.txt",
        "--max-tokens=512",
        "--trust-remote-code",
    )
    assert set(recipe.inputs) == {f"{tmp_path}/model", f"{tmp_path}/text.txt", "more"}
    assert recipe.inputs[f"{tmp_path}/text.txt"] == content_sha256(tmp_path / "text.txt")
    assert recipe.threads == torch.get_num_threads()
    assert recipe.versions == versions()
    assert recipe.line.startswith("statesize study recall gla ")


def test_data_sets_are_hashed_where_they_are_folders(tmp_path):
    (tmp_path / "data.arrow").write_bytes(b"rows")
    local = make_recipe(["profile"], {"dataset": str(tmp_path)})
    assert local.inputs == {str(tmp_path): content_sha256(tmp_path)}
    assert make_recipe(["profile"], {"dataset": "some/data"}).inputs == {}


def test_a_recipe_is_read_as_it_was_written(tmp_path):
    recipe = make_recipe(["profile", "gla"], {"seed": 3}, threads=5)
    write_recipe(tmp_path, recipe)
    assert Recipe.from_dict(read_json(tmp_path / "recipe.json"), "here") == recipe
    assert recipe.threads == 5


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {"schema": 2},
        {"command": "profile"},
        {"command": [1]},
        {"inputs": []},
        {"inputs": {"x": 1}},
        {"versions": None},
        {"threads": 0},
        {"threads": True},
        {"threads": 1.0},
        {"machine": None},
    ],
)
def test_damaged_recipes_are_refused(wrong):
    good = make_recipe(["profile"], {}).to_dict()
    with pytest.raises(FileError, match=r"^here has a"):
        Recipe.from_dict(good | wrong if isinstance(wrong, dict) else wrong, "here")


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
