"""A study's page, and the conclusion in its folder."""

import csv
import json
import re

import altair as alt
import pytest
from report.visit import Visit, chromium, violations

from statesize.errors import FileError
from statesize.lab.studies.engine.conclusion import CONCLUSION, Conclusion, read_conclusion
from statesize.lab.studies.engine.run import MOST_ROWS, PAGE, write_page
from statesize.report.result_page import told_apart
from statesize.report.table import html_table

HOSTILE = "<b onclick=alert(1)>gla"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies") / "study"
    folder.mkdir()
    rows = [
        {"run": f"run {step}", "status": "done", "message": "", "mixer": HOSTILE, "kv": step, "accuracy": step / 3 - 1}
        for step in range(4)
    ]
    rows.append(rows[0] | {"run": "run 4", "status": "diverged", "message": "loss is <nan>", "accuracy": float("nan")})
    values = alt.Data(values=[{key: row[key] for key in ("mixer", "kv")} for row in rows])
    chart = alt.Chart(values).mark_point().encode(x="kv:Q", y="kv:Q", color="mixer:N").properties(width=600)
    said = {
        "claim": "One <i> and two.",
        "holds": None,
        "caveats": ("c & d",),
    }
    figures = {"<i>one": 1.0, "between": (1.0, 2.0), "unknown": float("nan")}
    write_page(
        Conclusion(study="regimes", figures=figures, reason="too few", **said),
        alt.vconcat(alt.hconcat(chart, chart)),
        rows,
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / PAGE).read_text(encoding="utf-8")


def test_text_stays_text_under_a_policy_without_eval(page):
    assert "script-src 'sha256-" in page
    assert "unsafe-eval" not in page
    assert "<b onclick" not in page
    assert "loss is &lt;nan&gt;" in page
    assert "Cannot tell: too few. The claim: One &lt;i&gt; and two." in page
    for text in ("c &amp; d", "&lt;i&gt;one", "[1, 2]"):
        assert text in page
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    assert "<!--" not in body


def test_what_all_rows_share_is_a_fact_and_no_column(page):
    assert 'data-name="kv"' in page
    assert 'data-name="mixer"' not in page
    assert "<dt>mixer</dt>" in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "without conclusion.json"),
        ("{", "must be a conclusion that `statesize study` wrote"),
        ("[]", "must be a conclusion that `statesize study` wrote"),
        ('{"schema": 2}', "must be a conclusion that `statesize study` wrote"),
    ],
)
def test_a_conclusion_that_cannot_be_read(tmp_path, content, message):
    other = tmp_path / "study"
    (other / "runs").mkdir(parents=True)
    if content is not None:
        (other / CONCLUSION).write_text(content)
    with pytest.raises(FileError, match=message):
        read_conclusion(other)


def test_the_conclusion_is_strict_json(folder):
    document = json.loads(
        (folder / CONCLUSION).read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name)
    )
    assert document["figures"] == {"<i>one": 1.0, "between": [1.0, 2.0], "unknown": None}
    assert "statesize" in document["versions"]
    assert (document["command"], "processors" in document["machine"]) == ("", True)


@pytest.mark.parametrize(("width", "scheme"), [pytest.param(1280, "light", marks=pytest.mark.slow), (360, "dark")])
def test_in_a_browser(folder, tmp_path, width, scheme):
    with chromium() as browser:
        visit = Visit(browser, folder / PAGE, width, scheme)
        page = visit.page
        # Charts of a row stand below each other on a phone.
        boxes = [part.bounding_box() for part in page.locator(".chart svg .mark-symbol").all()[:2]]
        assert (boxes[0]["y"] == boxes[1]["y"]) == (width > 520)
        sizes = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert sizes[0] <= sizes[1]
        assert page.locator(".chart svg").bounding_box()["width"] <= page.locator(".chart").bounding_box()["width"]
        visit.unfold()
        rows = page.locator("section[aria-labelledby=table-1-title]")
        rows.locator("th[data-name=accuracy] button").click()
        shown = rows.locator("tbody tr").evaluate_all("rows => rows.map(row => row.cells[2].dataset.value)")
        assert shown == ["-1", "-0.666667", "-0.333333", "0", ""]
        rows.locator(".tools input").fill("run 4")
        with page.expect_download() as download:
            rows.locator(".tools button").click()
        assert download.value.suggested_filename == "statesize-study.csv"
        download.value.save_as(tmp_path / "rows.csv")
        with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        assert (row["run"], row["accuracy"], row["message"]) == ("run 4", "", "loss is <nan>")
        assert violations(page) == []
        assert visit.complaints == []
        assert len(visit.requests) == 1
        visit.context.close()


ROWS = [
    {"run": "a", "kv": 4, "accuracy": 0.123456789, "final": True, "settings": "{}", "width": 32},
    {"run": "b", "kv": 4, "accuracy": float("nan"), "final": False, "settings": "{1}", "width": 32, "extra": 1.0},
]


def test_columns_that_differ_with_long_ones_last():
    told, _ = told_apart(ROWS, "Rows")
    table = html_table(told.headings, told.rows)
    assert re.findall(r'data-name="(\w+)"', table) == ["accuracy", "final", "extra", "run"]
    assert 'data-value="0.123457">0.123</td>' in table
    assert '<td class="number" data-value="">–</td>' in table
    assert "<td>yes</td>" in table


def test_shared_facts():
    assert told_apart(ROWS, "Rows")[1] == {"kv": "4", "width": "32"}
    assert told_apart(ROWS[:1], "Rows")[1]["accuracy"] == "0.123"


def test_only_so_many_rows():
    rows = [{"step": step} for step in range(MOST_ROWS + 1)]
    assert told_apart(rows, "Rows", most=MOST_ROWS)[0].rows[-1] == [MOST_ROWS - 1]
