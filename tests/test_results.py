"""What the repository keeps of studies: every record follows from its table, and pages show nothing else."""

import hashlib
import json
import re
from pathlib import Path

import pytest

import experiments.cause  # noqa: F401
import experiments.crossover  # noqa: F401
import experiments.rank  # noqa: F401
import experiments.variation  # noqa: F401
from statesize.cli import main
from statesize.lab.studies import study as studies
from statesize.lab.studies.engine.record import RECORD, verify
from statesize.lab.studies.engine.table import TABLE, StudyTable, parse_rows
from tools.figures import on_record
from tools.figures.findings import CLAIMS, findings

ROOT = Path(__file__).parents[1]
RECORDED = [*studies.names(), "recall"]
FOLDERS = {name: ROOT / on_record.record_folder(name) for name in RECORDED}


def document(folder):
    return json.loads((folder / RECORD).read_text("utf-8"))


@pytest.fixture(scope="module")
def shown():
    parts = (findings, on_record.quoted)
    return {part.__name__: part() for part in parts}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_record_follows_from_its_table(name):
    # That of recall is of a preset of delimiters.
    assert verify(studies["delimiters" if name == "recall" else name](), FOLDERS[name])["done"] > 0


@pytest.mark.parametrize("name", studies.names())
def test_records_of_a_study_have_the_quantities_of_its_charts(name):
    study = studies[name]()
    records = study.records(StudyTable(parse_rows((FOLDERS[name] / TABLE).read_bytes())))
    for panel in study.panels:
        assert any({panel.x, panel.y} <= record.keys() for record in records)


def rounded(number):
    """What equals each number that is shown as this one."""
    return pytest.approx(float(number), abs=0.501 * 10.0 ** -len(number.partition(".")[2]))


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=lambda folder: folder.name)
def test_the_table_is_that_of_the_record_and_small(folder):
    content = (folder / TABLE).read_bytes()
    assert hashlib.sha256(content).hexdigest() == document(folder)["table_sha256"]
    assert len(content) < 2**19


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=lambda folder: folder.name)
def test_pages_show_the_verdict_and_every_tested_figure_of_the_record(shown, folder):
    kept = document(folder)
    verdict = {True: "holds", False: "fails", None: "cannot tell"}[kept["holds"]]
    link = f"[{verdict}](../{on_record.record_folder(folder.name)}/record.json)"
    if folder.name in {study for _, study in CLAIMS}:
        row = next(line for line in shown["findings"]["table"].splitlines() if link in line)
    else:
        # Studies beyond the paper's claims are told in words.
        row = "".join((ROOT / "docs" / page).read_text("utf-8") for page in ("findings.md", "recall.md", "cause.md"))
        assert link in row
    for name, value in kept["figures"].items():
        if re.fullmatch(r"claim_.*_units", name):
            stated = kept["figures"][name.removesuffix("_units")]
            assert f"{value:.0f}" in row
            assert stated is None or stated in map(rounded, re.findall(r"-?\d+\.\d\d+", row))


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "folder"), [("recall", "recall"), ("record", "delimiters")])
def test_the_records_of_delimiters_are_repeated(tmp_path, preset, folder):
    assert main(["lab", "study", "delimiters", "--preset", preset, "--output", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "conclusion.json").read_text("utf-8"))["figures"]
    for name, value in document(FOLDERS[folder])["figures"].items():
        assert figures[name] == (None if value is None else pytest.approx(value, rel=1e-6, abs=1e-12)), name


def test_quoted_figures_are_those_of_the_records(shown):
    for name, text in shown["quoted"].items():
        study, _, figure = name.partition("_")
        figures = {key.replace(".", "_"): value for key, value in document(FOLDERS[study])["figures"].items()}
        if figure in figures and f"{figure}_interval" in figures:
            told = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", text)
            assert [figures[figure], *figures[f"{figure}_interval"]] == [rounded(number) for number in told.groups()]
        elif figure in figures:
            assert text == str(int(figures[figure]))
    assert shown["quoted"]["delimiters_models"] == str(document(FOLDERS["delimiters"])["figures"]["models"])[:-2]


def test_the_false_positives_are_at_most_37_of_1000():
    found = on_record.read_json("false_positives")
    assert found["draws"] >= 200
    for row in found["designs"]:
        assert max(row["independent"], row["cell_effects"], row["shared_holds"]) <= 0.037 * found["draws"], row
