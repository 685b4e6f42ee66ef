"""What commands print with --json is what the schema says; longer ones are held to it where they are run."""

import json

import jsonschema
import pytest
from cli.documents import SCHEMA, assert_document

from statesize.cli import main


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.fixture(scope="module")
def saved(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    (folder / "text.txt").write_text("The quick brown fox returns a list.\n", encoding="utf-8")
    return folder


@pytest.fixture
def printed(capsys):
    def printed(*arguments):
        capsys.readouterr()
        assert main([*map(str, arguments), "--json", "--quiet"]) == 0
        return json.loads(capsys.readouterr().out)

    return printed


def test_profiles(printed, checkpoint, saved):
    command = ["profile", checkpoint, "--text", saved / "text.txt"]
    document = printed(*command, "--output", saved / "result")
    assert_document("profile", document)
    assert_document("plan", printed(*command, "--plan"))
    assert_document("compare", printed("compare", saved / "result"))
    # A field that nobody has described, and one that is missing.
    for wrong in ({**document, "more": 1}, {name: value for name, value in document.items() if name != "mixers"}):
        with pytest.raises(jsonschema.ValidationError):
            assert_document("profile", wrong)


def test_models(capsys):
    assert main(["models", "--json"]) == 0
    assert_document("models", json.loads(capsys.readouterr().out))
