"""The models of a study of delimiters, by name."""

import shutil

from statesize import zoo
from statesize.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.studies.delimiters.subjects import subjects


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
