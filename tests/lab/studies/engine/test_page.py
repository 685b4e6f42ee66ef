"""A study's page, and the conclusion in its folder."""

import json

import altair as alt
import pytest

from statesize.lab.studies.engine.run import CONCLUSION, PAGE, told_apart, write_page
from statesize.lab.studies.engine.verdicts import Conclusion

HOSTILE = "<b onclick=alert(1)>gla"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    common = {"status": "done", "message": "", "mixer": HOSTILE}
    rows = [common | {"run": f"run {step}", "kv": step, "accuracy": step / 3 - 1} for step in range(4)]
    rows.append(rows[0] | {"run": "run 4", "status": "diverged", "message": "loss is <nan>", "accuracy": float("nan")})
    values = alt.Data(values=[{key: row[key] for key in ("mixer", "kv")} for row in rows])
    chart = alt.Chart(values).mark_point().encode(x="kv:Q", y="kv:Q", color="mixer:N").properties(width=600)
    figures = {"<i>one": 1.0, "<i>one_interval": [1.0, 2.0], "unknown": float("nan")}
    said = {"claim": "One <i> and two.", "holds": None, "reason": "too few", "caveats": ("c & d",)}
    write_page(
        Conclusion(study="regimes", figures=figures, **said), alt.vconcat(alt.hconcat(chart, chart)), rows, folder, ""
    )
    return folder


def test_text_stays_text_and_what_all_rows_share_is_a_fact(folder):
    page = (folder / PAGE).read_text(encoding="utf-8")
    for text in (
        "Cannot tell: too few. The claim: One &lt;i&gt; and two.",
        "loss is &lt;nan&gt;",
        "c &amp; d",
        "[1, 2]",
    ):
        assert text in page
    assert ('data-name="kv"' in page, 'data-name="mixer"' in page, "<dt>mixer</dt>" in page) == (True, False, True)
    assert HOSTILE not in page


def test_the_conclusion_is_strict_json(folder):
    document = json.loads(
        (folder / CONCLUSION).read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name)
    )
    assert document["figures"] == {"<i>one": 1.0, "<i>one_interval": [1.0, 2.0], "unknown": None}
    assert document.keys() >= {"versions", "command", "machine"}


def test_columns_that_differ_and_shared_facts():
    shared = {"kv": 4, "settings": "{}", "width": 32}
    rows = [
        {"run": "a", "accuracy": 0.123456789, "final": True} | shared,
        {"run": "b", "accuracy": float("nan"), "final": False, "extra": 1.0} | shared,
    ]
    told, facts = told_apart(rows)
    assert told.headings == ["run", "accuracy", "final", "extra"]
    assert told.rows[0] == ["a", 0.123456789, True, None]
    assert facts == {"kv": "4", "width": "32"}
