"""Files that a stranger changed are read, or refused in one line: no traceback."""

import contextlib
import io
import json
import random
import shutil

import pandas as pd
import pytest

from statesize.cli import main
from statesize.lab.zoo import load
from statesize.profiling import profile
from statesize.results.place import MARKER

VALUES = (
    *(None, True, 0, -1, 1.5, 2**53, 10**30, 1e308, "", "x", "\x1b[2J", "\u202e", "../../x", "load", "float64"),
    *([], {}, [[]], {"x": {}}, [None], "x" * 5000, "<script>", [1, 2, 3], {"url": "http://127.0.0.1/"}),
)


def alter(values, chance):
    """Put something else in the place of one value of JSON, at any depth, or take it out."""
    while values:
        key = chance.choice(list(values) if isinstance(values, dict) else range(len(values)))
        if isinstance(values[key], dict | list) and values[key] and chance.random() < 0.8:
            values = values[key]
            continue
        if chance.random() < 0.15:
            del values[key]
        else:
            values[key] = chance.choice(VALUES)
        return


def flip(path, chance):
    """Change some bytes of a file, or cut it off as well."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 3, 30))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content[: chance.choice((len(content), chance.randrange(1, len(content))))])


def make_profile(folder):
    model, tokenizer = load("gla")
    profile(model, "A small text.", tokenizer=tokenizer, name="gla", positions=3).save(folder / "profile")


def change_profile(folder, chance):
    marker = json.loads((folder / "profile" / MARKER).read_text("utf-8"))
    if chance.random() < 0.3:
        flip(folder / "profile" / f"{chance.randrange(len(marker['nodes'])):05d}.safetensors", chance)
    else:
        alter(marker, chance)
    (folder / "profile" / MARKER).write_text(json.dumps(marker, ensure_ascii=False), "utf-8")


def make_texts(folder):
    texts = ["A small text of some words.", "Another one of them."]
    pd.DataFrame({"text": texts * 20}).to_parquet(folder / "c.parquet")


def change_texts(folder, chance):
    flip(folder / "c.parquet", chance)


KINDS = {
    "profile": (make_profile, change_profile, "compare PLACE/profile PLACE/profile"),
    "Parquet": (make_texts, change_texts, "profile gla --parquet PLACE/c.parquet --positions 1 --sequences 1"),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    make, change, command = KINDS[request.param]
    folder = tmp_path_factory.mktemp("made")
    make(folder)
    return folder, change, command


@pytest.mark.few(10)
@pytest.mark.parametrize("number", range(8))
def test_changed_files_are_read_or_refused_in_one_line(kind, tmp_path, number):
    folder, change, command = kind
    place = tmp_path / "given"
    shutil.copytree(folder, place)
    change(place, random.Random(number))  # noqa: S311
    printed, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
        code = main(command.replace("PLACE", str(place)).split())
    errors = [line for line in told.getvalue().splitlines() if line.startswith("statesize: error: ")]
    assert code in {0, 1, 2}
    assert len(errors) == (code > 0), told.getvalue()
    assert "Traceback" not in told.getvalue()
    assert not any(sign in printed.getvalue() + told.getvalue() for sign in "\x1b\x9b\u202e\x07")
