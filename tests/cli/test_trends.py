"""`statesize lab series` and `statesize lab length`: the JSON of the API, a page, resuming and bad input."""

import json

import pytest

import statesize as ss
from statesize.cli import main
from statesize.io.json_values import json_values
from statesize.models.load import load_tokenizer
from statesize.texts.inputs import bundled_sequences

SMALL = ["--mixer", "gla", "--steps", "4", "--batch", "2", "--length", "16", "--checkpoint-every", "2"]


def printed(capsys, *command):
    capsys.readouterr()
    assert main([*map(str, command), "--json"]) == 0
    return {name: value for name, value in json.loads(capsys.readouterr().out).items() if name != "schema"}


def test_a_training_is_followed_through_its_checkpoints(here, capsys):
    documents = (f"{number} tokens of the past, and {99 - number} of the future." * 4 for number in range(60))
    (here / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    trained = "lab train text --text text.txt --keep-every 2 --output run"
    assert main([*trained.split(), *SMALL]) == 0
    asked = ["lab", "series", "run", "--sequences", "2", "--max-tokens", "24", "--output", "points"]
    assert main([*asked, "--html", "series.html"]) == 0
    captured = capsys.readouterr()
    assert "layers.3.mixer" in captured.out
    assert "few texts" in captured.out
    assert (here / "series.html").is_file()
    found = ss.lab.series("run", bundled_sequences(load_tokenizer("run/step-000000")[0], 2, 24))
    assert [one["step"] for one in found.to_dict()["steps"]] == [0, 2, 4]
    # What is kept is taken up.
    assert printed(capsys, *asked) == json_values(found.to_dict())


def test_lengths_are_those_of_the_api(checkpoint, here, capsys):
    asked = ["--lengths", "8,16,32", "--future", "8", "--excerpts", "3", "--trained-length", "16"]
    found = ss.lab.length(
        str(checkpoint), lengths=[8, 16, 32], excerpts=3, trained_length=16, settings=ss.Settings(future=8)
    )
    assert printed(capsys, "lab", "length", checkpoint, *asked, "--html", "length.html") == json_values(found.to_dict())
    assert found.headline in (here / "length.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("command", "message", "code"),
    [
        ("lab series gla", "checkpoints must be at least 2 different ones, got ['gla']", 2),
        ("lab series gla --revisions a,b", "revision must be left out for a model that is not of the hub", 2),
        ("lab series gla sa --max-tokens 24 --layers 9", "layers must be the model's mixers", 2),
        ("lab length gla --lengths 8,x", "lengths must be whole numbers such as 64,128, got '8,x'", 2),
        ("lab length gla --lengths 8,9999999", "lengths must be at most", 2),
    ],
)
def test_bad_input_is_refused(command, message, code, capsys):
    assert main(command.split()) == code
    assert message in capsys.readouterr().err
