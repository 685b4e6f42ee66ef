"""What the repository keeps of studies: every record follows from its table, and pages show nothing else."""

import hashlib
import json
import math
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from statesize.cli import main
from statesize.lab.studies import delimiters, recall
from statesize.lab.studies.catalogue import QUESTIONS, load_study
from statesize.lab.studies.engine.conclusion import known
from statesize.lab.studies.engine.record import RECORD, read_record
from statesize.lab.studies.engine.table import TABLE
from tools.figures import on_record
from tools.figures.findings import CLAIMS, findings

ROOT = Path(__file__).parents[1]
STUDIES = on_record.RESULTS / "studies"
FOLDERS = sorted(path.parent for path in STUDIES.glob(f"*/{RECORD}"))
TEXTS = ("delimiters", "recall")
# The study of zoology is no more; its record is quoted.
GRIDS = [folder for folder in FOLDERS if folder.name not in (*TEXTS, "zoology")]


def document(folder):
    return json.loads((folder / RECORD).read_text("utf-8"))


@pytest.fixture(scope="module")
def shown():
    parts = (on_record.results, findings, on_record.quoted)
    return {part.__name__: part() for part in parts}


@pytest.mark.parametrize("folder", GRIDS, ids=lambda folder: folder.name)
def test_a_record_follows_from_its_table(folder):
    study = load_study(folder.name)
    kept, again = document(folder), json.loads(read_record(study, folder).content()[RECORD])
    # A table may be written in another way by another pyarrow.
    figures = [found.pop("figures") for found in (kept, again)]
    assert {**kept, "table_sha256": ""} == {**again, "table_sha256": ""}
    assert figures[0].keys() == figures[1].keys()
    for name, value in figures[0].items():
        assert figures[1][name] == close(value), name


def close(value, rounding=1e-9):
    return None if value is None else pytest.approx(value, rel=rounding, abs=1e-12)


def rounded(number):
    """What equals each number that is shown as this one."""
    return pytest.approx(float(number), abs=0.501 * 10.0 ** -len(number.partition(".")[2]))


def test_the_record_of_delimiters_follows_from_its_table():
    # Put on record before its table had these columns.
    added = {"kind": "gla", "offset": 0, "delimiter": "eos", "past": 12, "future": 12}
    rows = [row | added for row in pd.read_parquet(STUDIES / "delimiters" / TABLE).to_dict(orient="records")]
    found, kept = delimiters.STUDY.conclude(rows, "", delimiters.STUDY.preset_claim), document(STUDIES / "delimiters")
    assert (found.claim, found.holds) == (kept["claim"], kept["holds"])
    figures = known(found.figures)
    assert set(figures) - set(kept["figures"]) == {"beyond_controls_gla", "beyond_controls_gla_interval"}
    for name, value in kept["figures"].items():
        assert figures[name] == close(value), name


def test_the_record_of_recall_follows_from_its_table():
    # Put on record before its table had intervals, counts and layers.
    unknown = {
        f"{name}_{end}": math.nan for name in ("recall", "first", "stale", "other") for end in ("low", "high", "tokens")
    }
    rows = pd.read_parquet(STUDIES / "recall" / TABLE).to_dict(orient="records")
    rows = [row | unknown | {"kind": row["model"]} for row in rows]
    found, kept = recall.STUDY.conclude(rows, "", recall.STUDY.preset_claim), document(STUDIES / "recall")
    assert (found.claim, found.holds) == (kept["claim"], kept["holds"])
    for name, value in known(found.figures).items():
        if not name.endswith("perplexity_interval"):
            assert value == close(kept["figures"][name]), name


@pytest.mark.parametrize("folder", GRIDS, ids=lambda folder: folder.name)
def test_the_preset_was_fixed_by_the_commit_of_the_record(folder):
    kept = document(folder)
    # Presets were files of their own until they moved into the file of the study, one of them with another name.
    former = "laptop" if kept["study"] == "initialisation" else kept["preset"]
    paths = [
        f"src/statesize/{room}/{kept['study']}{end}"
        for room in ("studies", "lab/studies")
        for end in (f"/{former}.toml", ".py")
    ]
    shown = [
        subprocess.run(["git", "show", f"{kept['made']['commit']}:{path}"], cwd=ROOT, capture_output=True, check=False)
        for path in paths
    ]
    if all(found.returncode for found in shown):
        pytest.skip("no history here")
    study = load_study(kept["study"])
    preset = study.presets[kept["preset"]].encode()
    assert hashlib.sha256(preset).hexdigest() == kept["preset_sha256"]
    assert any(
        preset == found.stdout if path.endswith(".toml") else preset in found.stdout
        for path, found in zip(paths, shown, strict=True)
    )


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_table_is_that_of_the_record_and_small(folder):
    content = (folder / TABLE).read_bytes()
    assert hashlib.sha256(content).hexdigest() == document(folder)["table_sha256"]
    assert len(content) < 2**19


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_pages_show_the_verdict_and_every_tested_figure_of_the_record(shown, folder):
    kept, page = document(folder), shown["results"][folder.name]
    verdict = {True: "holds", False: "fails", None: "cannot tell"}[kept["holds"]]
    assert f"Verdict: **{verdict}**" in page
    assert all(statement in page for statement in kept["statements"] if statement.startswith("Tested: "))
    if folder.name == "zoology":
        return  # claims nothing
    assert f"`{on_record.REPEATED.get(folder.name, kept['made']['command'])}`" in page
    link = f"[{verdict}](../results/studies/{folder.name}/record.json)"
    if folder.name in {study for _, study in CLAIMS}:
        row = next(line for line in shown["findings"]["table"].splitlines() if link in line)
    else:
        # Studies beyond the paper's claims are told in words.
        row = "".join((ROOT / "docs" / page).read_text("utf-8") for page in ("findings.md", "recall.md"))
        assert link in row
    for name, value in kept["figures"].items():
        if re.fullmatch(r"claim_.*_units", name):
            stated = kept["figures"][name.removesuffix("_units")]
            assert f"{value:.0f}" in row
            assert stated is None or stated in map(rounded, re.findall(r"-?\d+\.\d\d+", row))


@pytest.mark.slow
def test_the_record_of_recall_is_repeated(tmp_path):
    assert main(["study", "recall", "--preset", "record", "--output", str(tmp_path)]) == 0
    found, kept = (pd.read_parquet(folder / TABLE) for folder in (tmp_path, STUDIES / "recall"))
    pd.testing.assert_frame_equal(found[kept.columns], kept, rtol=1e-6)
    figures = json.loads((tmp_path / "conclusion.json").read_text("utf-8"))["figures"]
    expected = document(STUDIES / "recall")["figures"]
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name] == close(value, 1e-6), name


def test_studies_without_a_record_are_not_yet_tested(shown):
    missing = set(QUESTIONS) - {folder.name for folder in FOLDERS}
    rows = shown["findings"]["table"].splitlines()
    for name in missing:
        assert shown["results"][name].startswith("Not yet tested")
        claimed = [row for row in rows if f"| {name} |" in row]
        assert all("not yet tested" in row for row in claimed)


def test_sentences_to_quote_hold_no_typed_figures():
    page = (ROOT / "docs" / "appendix" / "claims.md").read_text("utf-8")
    sentences = page.split("## Six results to quote")[1].split("##")[0]
    assert re.findall(r"^\d\. ", sentences, re.MULTILINE) == [f"{number}. " for number in range(1, 7)]
    typed = re.sub(r"<span .*?</span>|S6|n = 16|n = 32|λ = 0\.3|near 1|95 %|^\d\. ", "", sentences, flags=re.MULTILINE)
    assert not re.findall(r"\d", typed)


def test_quoted_figures_are_those_of_the_records(shown):
    for name, text in shown["quoted"].items():
        study, _, figure = name.partition("_")
        figures = {key.replace(".", "_"): value for key, value in document(STUDIES / study)["figures"].items()}
        if figure in figures and f"{figure}_interval" in figures:
            told = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", text)
            assert [figures[figure], *figures[f"{figure}_interval"]] == [rounded(number) for number in told.groups()]
        elif figure in figures:
            assert text == str(int(figures[figure]))
    assert shown["quoted"]["delimiters_models"] == str(document(STUDIES / "delimiters")["figures"]["models"])[:-2]


def test_the_false_positives_are_at_most_37_of_1000():
    found = on_record.read_json("false_positives")
    assert found["draws"] >= 200
    for row in found["designs"]:
        assert max(row["independent"], row["cell_effects"], row["shared_holds"]) <= 0.037 * found["draws"], row


def test_units_that_are_not_independent_are_found_where_nothing_is():
    designs = on_record.read_json("false_positives")["designs"]
    rows = {row["study"]: row for row in designs if row["preset"] == "record"}
    assert rows["hybrids"]["shared"] < rows["hybrids"]["shared_by_placement"] / 3
    assert rows["regimes"]["shared_by_beginning"] < rows["regimes"]["shared"] / 2
