"""`statesize rerun`: results are repeated and compared, or refused with the reason."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from statesize.cli import main
from statesize.io.recipe import FILE, Recipe
from statesize.lab.rerun.result import check_inputs, read_result
from statesize.profiling import Profile

STUDY = """
[model]
mixer = ["la", "gla"]
width = 8
layers = 1
heads = 1
key_size = 4
[training]
steps = 2
batch_size = 2
[measuring]
every = 2
sequences = 2
[execution]
workers = 1
[[task]]
name = "mqar"
pairs = 2
length = 12
held_out_sequences = 4
"""


def told(arguments, capsys, code=0):
    assert main([str(argument) for argument in arguments]) == code
    return capsys.readouterr()


def rerun(result, capsys, *options, code=0):
    document = json.loads(told(["rerun", result, "--json", "--quiet", *options], capsys, code).out)
    return {part["part"]: (part["verdict"], part["detail"]) for part in document["parts"]}, document


@pytest.fixture
def profile(checkpoint, text, tmp_path, capsys):
    """A profile that tests may change."""
    model = shutil.copytree(checkpoint, tmp_path / "model")
    told(["profile", model, "--text", text, "--output", tmp_path / "result", "--quiet"], capsys)
    return tmp_path / "result"


def change(path, edit):
    """A profile as it would be had another number come out."""
    tree = Profile.load(path).to_xarray()
    edit(tree)
    Profile(tree).save(path)


def test_a_profile_is_repeated(profile, capsys):
    captured = told(["rerun", profile], capsys)
    rows = [line.split()[:2] for line in captured.out.splitlines()]
    assert rows[1:] == [[part, "identical"] for part in ("tokens", "layers.0.mixer", "layers.1.mixer")]
    assert f"Repeating: statesize profile {profile.with_name('model')} " in captured.err


def test_what_was_printed_is_repeated(checkpoint, text, tmp_path, capsys):
    document = tmp_path / "told.json"
    checkpoint = shutil.copytree(checkpoint, tmp_path / "model")
    out = told(["profile", checkpoint, "--text", text, "--json", "--quiet", "--channels", "1"], capsys).out
    document.write_text(out, encoding="utf-8")
    assert {verdict for verdict, _ in rerun(document, capsys)[0].values()} == {"identical"}
    values = json.loads(out)
    values["mixers"][1]["norm"] *= 1.5
    document.write_text(json.dumps(values), encoding="utf-8")
    parts, _ = rerun(document, capsys, code=1)
    assert parts["mixer layers.1.mixer"] == ("different", "1 value differs, norm by 3.3e-01 of its size")
    assert parts["mixer layers.0.mixer"] == parts["document"] == ("identical", "")


def test_what_differs_is_an_error(profile, capsys):
    def edit(tree):
        tree["layers.1.mixer"]["entropy"].values[0, 1, 3] += 1

    change(profile, edit)
    captured = told(["rerun", profile], capsys, code=1)
    assert captured.err.splitlines()[-1] == (
        f"statesize: error: 1 of 3 parts of {profile} differ from their repetition."
    )
    assert "entropies differ by up to 1.0e+00" in captured.out


def test_what_differs_within_bounds_is_none(profile, capsys):
    def edit(tree):
        mixer = tree["layers.0.mixer"]
        mixer["entropy"].values[0, 0, 3] += np.float32(1e-3)
        mixer["entropy_bound"].values[0, 0, 3] = 2e-3

    change(profile, edit)
    parts, _ = rerun(profile, capsys)
    assert parts["layers.0.mixer"][0] == "within bounds"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda text, _: text.write_text("Another text, of other words.", encoding="utf-8"),
            "text.txt is not what was",
        ),
        (lambda text, _: text.unlink(), "text.txt is no longer there; it was read for this result"),
        (lambda _, model: shutil.rmtree(model), "model is no longer there"),
        (lambda _, model: (model / "tokenizer.json").write_text("{}", encoding="utf-8"), "model is not what was read"),
    ],
)
def test_inputs_that_are_gone_or_changed(profile, text, capsys, edit, message):
    edit(text, profile.with_name("model"))
    captured = told(["rerun", profile], capsys, code=1)
    assert captured.out == ""
    assert message in captured.err
    assert "SHA-256" in captured.err


def test_a_study_is_repeated(tmp_path, capsys):
    grid, result = tmp_path / "grid.toml", tmp_path / "study"
    grid.write_text(STUDY, encoding="utf-8")
    told(["study", "regimes", "--config", grid, "--output", result, "--quiet"], capsys)
    assert {verdict for verdict, _ in rerun(result, capsys)[0].values()} == {"identical"}
    grid.write_text(STUDY.replace("steps = 2", "steps = 3"), encoding="utf-8")
    assert "grid.toml is not what was read" in told(["rerun", result], capsys, code=1).err


def test_a_training_and_its_export_are_repeated(tmp_path, capsys):
    text, run, export = tmp_path / "text.txt", tmp_path / "run", tmp_path / "export"
    words = "\n\n".join(f"Document {number} tells of the states {number * 7 % 13} of a model." for number in range(40))
    text.write_text(words, encoding="utf-8")
    sizes = ["--steps=2", "--batch=2", "--length=16", "--evaluate-every=1", "--checkpoint-every=2"]
    told(["train", "text", "--mixer=la", f"--text={text}", *sizes, f"--output={run}", f"--export={export}"], capsys)
    expected = {"steps": ("identical", ""), "best weights": ("identical", "")}
    assert rerun(run, capsys)[0] == expected
    assert set(rerun(export, capsys)[0].values()) == {("identical", "")}
    log = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(log[1])
    (run / "log.jsonl").write_text(f"{log[0]}\n{json.dumps(last | {'loss': last['loss'] + 1})}\n", encoding="utf-8")
    parts, _ = rerun(run, capsys, code=1)
    assert parts["steps"] == ("different", "from step 2 on; losses differ by up to 1.0e+00")
    assert parts["best weights"] == ("identical", "")
    (run / "log.jsonl").write_text(f"{log[0]}\n", encoding="utf-8")
    assert rerun(run, capsys, code=1)[0]["steps"] == ("different", "the result has 1 steps, the repetition 2")


def test_a_training_on_the_prose_of_another_python_is_refused(tmp_path, capsys, monkeypatch):
    # Topics, and a library of one file, which takes less time than the whole.
    library, run = tmp_path / "library", tmp_path / "run"
    library.mkdir()
    docstring = " ".join(f"Line {number} tells what a function gives." for number in range(20))
    (library / "module.py").write_text(f'"""{docstring}"""', encoding="utf-8")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(library))
    sizes = ["--steps=1", "--batch=32", "--length=16", "--threads=1"]
    told(["train", "text", "--mixer=la", *sizes, f"--output={run}"], capsys)
    check_inputs(read_result(run).recipe)
    (library / "module.py").write_text(f'"""Another. {docstring}"""', encoding="utf-8")
    assert "is not what was read for this result" in told(["rerun", run], capsys, code=1).err


def test_other_versions_are_told(checkpoint, text, tmp_path, capsys):
    document = tmp_path / "told.json"
    checkpoint = shutil.copytree(checkpoint, tmp_path / "model")
    values = json.loads(told(["profile", checkpoint, "--text", text, "--json"], capsys).out)
    values["recipe"]["versions"]["torch"] = "0.1"
    document.write_text(json.dumps(values), encoding="utf-8")
    _, found = rerun(document, capsys)
    assert [change.split(",")[0] for change in found["changed_versions"]] == ["torch 0.1"]
    assert "Other versions: torch 0.1, now " in told(["rerun", document], capsys).out


def with_command(tmp_path, *command, inputs=(), threads=1):
    """A document of a stranger."""
    recipe = Recipe(command, dict.fromkeys(map(str, inputs), "0" * 64), threads, {}, "")
    path = tmp_path / "strange.json"
    path.write_text(json.dumps({"recipe": recipe.to_dict()}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("demo",),
        (),
        ("profile", "gla", "--html=page.html"),
        ("profile", "gla", "--output=elsewhere"),
        ("profile", "gla", "--html", "page.html"),
        ("train", "text", "--export=elsewhere"),
        ("profile", "-o"),
        ("study", "correlation", "--Output=elsewhere"),
    ],
)
def test_commands_of_strangers_are_not_run(tmp_path, capsys, command):
    captured = told(["rerun", with_command(tmp_path, *command)], capsys, code=1)
    assert "names a command that statesize does not repeat" in captured.err


@pytest.mark.parametrize("option", ["--module=evil.py", "--trust-remote-code", "--allow-pickle"])
def test_code_of_strangers_needs_a_word(tmp_path, capsys, option):
    path = with_command(tmp_path, "profile", "gla", option, "--text=/nowhere")
    assert "if you trust where it comes from, give --allow-code" in told(["rerun", path], capsys, code=1).err
    if option != "--module=evil.py":
        assert "/nowhere" in told(["rerun", path, "--allow-code"], capsys, code=1).err.splitlines()[-1]


def refusal(tmp_path, capsys, *options, **told_of):
    path = with_command(tmp_path, *told_of.pop("command", ("profile", "gla", "--text=x")), **told_of)
    captured = told(["rerun", path, *options], capsys, code=1)
    assert captured.out == ""
    return captured.err.splitlines()[-1]


@pytest.fixture
def elsewhere(tmp_path, tmp_path_factory):
    """A text outside of the folder of the result."""
    text = tmp_path_factory.mktemp("elsewhere") / "text.txt"
    text.write_text("mine", encoding="utf-8")
    return text


def test_inputs_lie_beside_the_result_or_are_named(tmp_path, capsys, elsewhere):
    given = {"command": ("profile", "gla", f"--text={elsewhere}"), "inputs": [elsewhere]}
    assert f"{elsewhere} must lie in {tmp_path}" in refusal(tmp_path, capsys, **given)
    assert "is not what was read" in refusal(tmp_path, capsys, f"--input={elsewhere}", **given)
    assert "is not what was read" in refusal(tmp_path, capsys, f"--input={elsewhere.parent}", **given)
    assert "must lie in" in refusal(tmp_path, capsys, f"--input={elsewhere}.more", **given)


def test_links_lead_to_what_must_be_named_too(tmp_path, capsys, elsewhere):
    link, folder = tmp_path / "text.txt", tmp_path / "model"
    link.symlink_to(elsewhere)
    assert "must lie in" in refusal(tmp_path, capsys, command=("profile", "gla", f"--text={link}"), inputs=[link])
    folder.mkdir()
    (folder / "model.txt").symlink_to(elsewhere)
    assert "must lie in" in refusal(tmp_path, capsys, command=("profile", str(folder)), inputs=[folder])


@pytest.mark.parametrize("option", ["--text", "--jsonl", "--parquet", "--ids", "--config", "--dataset", ""])
def test_what_a_command_reads_is_among_the_inputs(tmp_path, capsys, elsewhere, option):
    word = f"{option}={elsewhere}" if option else str(elsewhere.parent)
    message = refusal(tmp_path, capsys, command=("profile", "gla", word))
    assert "must be among the inputs of the result" in message


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_inputs_are_regular_files(tmp_path, capsys, kind):
    place = tmp_path / "text.txt"
    os.mkfifo(place) if kind == "pipe" else place.symlink_to("/dev/zero")
    given = {"command": ("profile", "gla", f"--text={place}"), "inputs": [place]}
    message = refusal(tmp_path, capsys, *(("--input=/dev/zero",) if kind == "device" else ()), **given)
    assert f"{place} must be a regular file, got a {kind}" in message


def test_inputs_that_are_too_large_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("statesize.io.recipe.MOST_INPUT", 4)
    place = tmp_path / "text.txt"
    given = {"command": ("profile", "gla", f"--text={place}"), "inputs": [place]}
    place.write_text("five!", encoding="utf-8")
    assert f"{place} must have at most 4 bytes, got 5" in refusal(tmp_path, capsys, **given)
    assert "is not what was read" in refusal(tmp_path, capsys, f"--input={place}", **given)


@pytest.mark.parametrize("threads", [10**6, (os.cpu_count() or 1) + 1])
def test_threads_are_those_of_the_machine(tmp_path, capsys, threads):
    given = {"command": ("profile", "gla"), "threads": threads}
    message = f"threads must be between 1 and {os.cpu_count()}, the cores of this machine, got {threads}"
    assert message in refusal(tmp_path, capsys, **given)


def test_results_that_do_not_say_how_they_were_made(profile, tmp_path, capsys):
    tree = Profile.load(profile).to_xarray()
    del tree.attrs["recipe"]
    Profile(tree).save(tmp_path / "other")
    for path in (tmp_path / "other", tmp_path):
        assert "does not say by which command it was made" in told(["rerun", path], capsys, code=1).err
    assert "There is no result at" in told(["rerun", tmp_path / "none"], capsys, code=1).err


def test_damaged_recipes(tmp_path, capsys):
    path = with_command(tmp_path, "profile")
    values = json.loads(path.read_text(encoding="utf-8"))["recipe"]
    for wrong in ({"schema": 7}, {"schema": 1}, values | {"threads": 0}, values | {"command": "profile"}):
        (tmp_path / FILE).write_text(json.dumps(wrong), encoding="utf-8")
        assert "recipe" in told(["rerun", tmp_path], capsys, code=1).err
    (tmp_path / FILE).write_text("[]", encoding="utf-8")
    assert "holds no JSON object" in told(["rerun", tmp_path], capsys, code=1).err
    (tmp_path / FILE).write_text("{", encoding="utf-8")
    assert "cannot be read as JSON" in told(["rerun", tmp_path], capsys, code=1).err


def test_threads_are_those_of_the_result(checkpoint, text, tmp_path, capsys):
    result = tmp_path / "result"
    told(["profile", checkpoint, "--text", text, "--output", result], capsys)
    recipe = read_result(Path(result)).recipe
    assert recipe.threads == 1
    assert Profile.load(result).attributes["threads"] == 1
    assert recipe.line.startswith("statesize profile ")
