import json
import platform

import pytest

from statesize.lab import zoo
from statesize.lab.tasks import train_tokenizer
from statesize.lab.zoo.bundled import DATA
from tools.text_bundle import write_bundle


@pytest.mark.slow
def test_bundle_is_what_the_corpus_gives(tmp_path, prose):
    assert write_bundle(tmp_path) == prose
    assert sorted(file.name for file in tmp_path.iterdir()) == ["documents.json", "tokenizer.json"]
    made = json.loads((tmp_path / "documents.json").read_text(encoding="utf-8"))
    assert tuple(made["documents"]) == prose.held_out
    assert made["corpus_sha256"] == prose.sha256
    assert made["python"] == platform.python_version()
    tokenizer = train_tokenizer(prose.train).to_str()
    assert json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8")) == json.loads(tokenizer)

    # On the text that made them, the bundled files come out byte for byte; another Python has another text.
    bundled = json.loads((DATA / "documents.json").read_text(encoding="utf-8"))
    assert made.keys() == bundled.keys()
    if bundled["corpus_sha256"] == prose.sha256:
        assert made["documents"] == zoo.documents()
        assert (tmp_path / "tokenizer.json").read_bytes() == (DATA / "tokenizer.json").read_bytes()
