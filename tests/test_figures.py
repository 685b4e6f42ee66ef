"""Pages whose figures come from the JSON documents beside them, and what these documents must say."""

import json
import re

import pytest

from tools.figures import families, figures, on_record, pages, trends
from tools.figures.findings import findings
from tools.figures.on_record import RESULTS, read_json
from tools.figures.pages import DOCS


def test_every_page_has_the_figures_of_the_records():
    behind = [path.name for path in pages.behind()]
    assert not behind, "run `python -m tools.figures.pages`"


def test_every_figure_is_on_a_page():
    found = {f"{part}.{name}": text for part, names in figures.figures().items() for name, text in names.items()}
    files = (pages.README, *DOCS.rglob("*.md"))
    shown = {name for page in files for name in pages.names(page.read_text("utf-8")) if "|" not in name}
    unquoted = {name for name in found if not name.startswith("quoted.")}
    assert unquoted <= shown
    assert shown <= set(found)
    assert all(found.values())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("of.rate|.1%", "12.5%"),
        ("of.rows.-1.held|,", "1,000"),
        ("of.rows|", "2"),
        ("of.holds|", "cannot tell"),
        ("of.said|", "as said"),
        ("of.ends|.2f", "0.50 [0.25, 0.75]"),
        ("of.look|.1f", "0.5 [-1.0, 2.0]"),
    ],
)
def test_a_figure_is_a_value_of_its_record(monkeypatch, name, text):
    document = {"rate": 0.125, "rows": [{}, {"held": 1000}], "holds": None, "said": "as said"}
    document |= {"ends": [0.5, 0.25, 0.75], "look": {"value": 0.5, "interval": [-1, 2], "units": 3}}
    monkeypatch.setattr(on_record, "read_json", {"of": document}.get)
    assert on_record.value(name) == text
    assert pages.filled(f'<span data-figure="{name}">-</span>', {}) == f'<span data-figure="{name}">{text}</span>'


def test_figures_are_written_between_their_marks():
    page = 'a <span data-figure="x.y">old\nvalue</span> b\n\n<!-- figure x.z -->\n\n| old |\n\n<!-- end of figure -->\n'
    found = pages.filled(page, {"x.y": "1.0", "x.z": "| new |"})
    assert found == page.replace("old\nvalue", "1.0").replace("old", "new")
    assert pages.names(page) == ["x.y", "x.z"]
    with pytest.raises(KeyError):
        pages.filled(page, {"x.y": "1.0"})


def test_layers_of_fla_count_where_all_of_them_is_measured():
    run = {"kind": "gla", "units": 2, "state_size": 8, "faithfulness": 3e-7, "dtype": "float32", "reason": ""}
    runs = dict.fromkeys(("references 32", "references 72", "kernels 32", "kernels 72"), run)
    layer = {**runs, "class": "GLA", "flash_attention": False, "in_torch": False}
    refused = run | {"kind": "", "units": 0, "state_size": None, "faithfulness": None, "reason": "asks for a GPU; no"}
    layers = {
        "whole": layer,
        "in torch": layer | {"in_torch": True},
        "flash": layer | {"flash_attention": True},
        "one head": layer | dict.fromkeys(runs, run | {"units": 1}),
        "not by kernels": layer | {"kernels 72": refused},
        "rwkv7": layer | {"kernels 72": run | {"faithfulness": 3.8e-5}, "flash_attention": True},
        "too far": layer | {"references 32": run | {"faithfulness": 3e-6}},
    }
    assert families.fla({"layers": layers}) == {"references": "3", "kernels": "2"}


def test_families_that_are_not_measured_are_named():
    found = families.families()
    assert int(found["all"]) - int(found["measured"]) == len(found["refused"].split(", "))
    assert "`blt`" in found["partly"]


def test_what_was_run_keeps_the_promises():
    assert [finding["number"] for finding in read_json("layers_campaign")["findings"]] == [200]
    assert len(read_json("fla")["layers"]) == 45
    agreement = read_json("agreement")
    assert agreement["mpmath"]["outside"] == agreement["slicot"]["outside"] == 0
    # Intervals of `implicit` hold in 95 % of cases.
    for row in agreement["engine_pairs"]["rows"]:
        allowed = 0.05 * row["entropy"]["compared"] if "implicit" in row["engines"] else 0
        assert row["values"]["outside"] == row["counts"]["outside"] == 0
        assert row["entropy"]["outside"] <= allowed


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json*")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_record_says_what_made_it(path):
    text = path.read_text("utf-8")
    made = json.loads(text.splitlines()[0] if path.suffix == ".jsonl" else text)["made"]
    assert list(made) == ["commit", "command", "versions", "date"]
    assert all(made.values())


def test_the_table_of_lengths_marks_what_lies_beyond_the_training():
    def told(entropy, last_interval):
        average = {"entropy": [*entropy, 6.0], "ceiling": [100.0] * 4}
        exponent = {"exponent": 0.5, "exponent_interval": [0.25, 0.75], "last": 0.0, "last_interval": last_interval}
        lengths = [{"length": length} for length in (64, 128, 256, 1024)]
        one = {"model": "sa", "lengths": lengths, "layers": [average], "exponents": [exponent]}
        return trends.length([one | {"trained_length": 256, "excerpts": 8, "future": 64}])["table"].splitlines()

    head, _, row = told([2, 4, 8], [0, 1])
    assert head == "| model | 64 | 128 | 256 | 1,024 † | exponent |"
    assert row == "| `sa` | 2.0 | 4.0 | 8.0 | 6.0 | 0.50 [0.25, 0.75] |"
    assert told([2, 4, 4], [0, 1])[-1].endswith("| slows down |")
    assert told([2, 4, 4], [0, 0.05])[-1].endswith("| saturates |")


def test_something_stands_beside_every_finding():
    shown = findings()
    rows = shown["table"].splitlines()[2:]
    studies = [re.search(r"results/studies/(\w+)/record", row)[1] for row in rows]
    said = read_json("caveats")["sentences"]
    assert sorted(said) == sorted(studies)
    for row, objection, study in zip(rows, shown["against"].splitlines(), studies, strict=True):
        claim = row.split("|")[1].partition(" (")[0].strip()
        assert objection == f"- *{claim}.* {said[study]}"
