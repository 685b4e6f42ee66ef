"""Each command begins with a finding, and ends with a command that works as it is printed."""

import json
import shutil

import altair as alt
import pytest
from cli.first_lines import next_command
from oracles.attention_models import attention_model

from statesize.cli import main
from statesize.cli.commands import app
from statesize.lab.studies.engine.conclusion import Conclusion
from statesize.lab.studies.engine.run import write_page
from statesize.lab.studies.engine.table import table_content

COMMANDS = {
    "profile": ("small", "--text", "text.txt"),
    "compare": ("one", "two"),
    "truncate": ("small", "--sequences", "2", "--max-tokens", "12"),
    "cache": ("llama", "--ids", "ids.jsonl", "--sequences", "6", "--max-tokens", "100"),
    "study": ("study",),
    "train": ("text", "--mixer", "la", "--text", "documents.txt", "--output", "run", "--steps", "2", "--length", "16"),
    "series": ("small", "small-2", "--text", "text.txt"),
    "length": ("small", "--lengths", "4,8", "--future", "4", "--excerpts", "2", "--text", "text.txt"),
}


@pytest.fixture(scope="module")
def inputs(checkpoint, small_profile, tmp_path_factory):
    """A folder with all that the commands read."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("small", "small-2"):
        shutil.copytree(checkpoint, folder / name)
    attention_model("llama").save_pretrained(folder / "llama")
    for name in ("one", "two"):
        small_profile.save(folder / name)
    sentence = "The quick brown fox returns a list, and it jumps over the lazy dog."
    (folder / "text.txt").write_text(f"{sentence}\n", encoding="utf-8")
    (folder / "long.txt").write_text(f"{sentence} {sentence}\n\n" * 60, encoding="utf-8")
    documents = "\n\n".join(f"document {number} says {number * number} and no more of {number}" for number in range(80))
    (folder / "documents.txt").write_text(documents, encoding="utf-8")
    ids = (json.dumps([(text + n * n) % 63 + 1 for n in range(100)]) for text in range(12))
    (folder / "ids.jsonl").write_text("\n".join(ids), encoding="utf-8")
    (folder / "study").mkdir()
    (folder / "study" / "table.parquet").write_bytes(table_content([{"kv": 1}]))
    said = Conclusion("regimes", "One claim.", True, {"pearson": 0.5}, ("Pearson 0.5 over 9 tasks.",), ("A caveat.",))
    chart = alt.vconcat(alt.Chart(alt.Data(values=[{"kv": 1}])).mark_point().encode(x="kv:Q"))
    write_page(said, chart, [{"kv": 1}], folder / "study", "statesize study regimes")
    return folder


def test_every_command_has_a_case():
    # The demo's own test looks at its lines.
    assert {name for name in app if not name.startswith("-")} == {*COMMANDS, "demo"}


@pytest.mark.few(6)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_finding_comes_first_and_a_command_that_works_last(inputs, here, monkeypatch, capsys, command):
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    shutil.copytree(inputs, here, dirs_exist_ok=True)
    assert main([command, *COMMANDS[command]]) == 0
    arguments = next_command(capsys.readouterr())
    assert main(arguments) == 0, capsys.readouterr().err
