import json

from statesize.lab.tasks.text import read_text
from tools.text_bundle import BUNDLED, main, sha256_of

PEP = "PEP: {0}\nTitle: A proposal\n\nAbstract\n========\n\nProposal {0} is a sentence. {1}\n\n{2}\n"
PAGE = ":mod:`m{0}` --- A page\n==================\n\n.. module:: m{0}\n\nPage {0} is a sentence.\n\n{1}\n"


def body(number):
    return "\n\n".join(f"Paragraph {k} of {number} says the word {k * number % 97}." for k in range(400))


def test_documents_are_beginnings_of_what_training_holds_out(tmp_path, capsys):
    for number in range(300):
        licence = "This document is in the public\ndomain." if number != 7 else "All rights reserved."
        (tmp_path / f"pep-{number:04}.rst").write_text(PEP.format(number, licence, body(number)))
        (tmp_path / "docs" / "library").mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / "library" / f"m{number}.rst").write_text(PAGE.format(number, body(number + 300)))
    (tmp_path / "docs" / "license.rst").write_text("A licence. " * 1000)
    (tmp_path / "docs" / "short.rst").write_text("A short page.")
    main((tmp_path, tmp_path / "docs"), tmp_path / "made")

    corpus = read_text(tmp_path / "made" / "corpus.jsonl")
    assert len(corpus.train) + len(corpus.held_out) == 599
    values = json.loads((tmp_path / "made" / "documents.json").read_text(encoding="utf-8"))
    assert values["corpus_sha256"] == sha256_of(map(sha256_of, (corpus.train, corpus.held_out)))
    assert values["sha256"] == sha256_of(values["documents"])
    assert len(values["documents"]) == min(BUNDLED, len(corpus.held_out))
    for document in values["documents"]:
        assert any(document in whole for whole in corpus.held_out)
        assert not any(document in whole for whole in corpus.train)
        assert document.startswith(("Proposal", "Page"))
        assert 7_500 < len(document) <= 8_000
    assert capsys.readouterr().out.startswith(f"documents: {len(corpus.train)} to train on")
