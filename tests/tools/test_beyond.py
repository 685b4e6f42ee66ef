"""What ESS adds to other numbers: the table follows from the records, and the test finds what is there and no more."""

import json

import numpy as np
import pytest

from statesize.lab.studies.engine.statistics import within_cells
from statesize.lab.studies.regimes import Regimes
from tools import alternatives, beyond


@pytest.fixture
def drawn():
    """Groups (24,), and makers of centred noise."""
    groups = np.repeat(np.arange(4), 6)
    return groups, lambda generator: within_cells(generator.normal(size=24), groups)


def test_the_table_follows_from_the_records():
    kept = json.loads(beyond.FILE.read_text("utf-8"))
    found = beyond.analysed(kept["repeated"])
    assert [row.keys() for row in found] == [row.keys() for row in kept["rows"]]
    for row, expected in zip(found, kept["rows"], strict=True):
        assert row == {
            name: pytest.approx(value, abs=1e-9) if isinstance(value, float) else value
            for name, value in expected.items()
        }


def test_what_the_page_says_of_the_table():
    document = json.loads(beyond.FILE.read_text("utf-8"))
    rows = {(row["study"], row["alternative"]): row for row in document["rows"]}
    assert min(row["adjusted_p"] for (study, _), row in rows.items() if study != "correlation") > 0.05
    largest = {name: row for (study, name), row in rows.items() if study == "correlation"}
    assert max(row["adjusted_p"] for row in largest.values()) < 0.001
    assert min(row["ess_given"] / row["ess"] for row in largest.values()) > 0.5
    assert largest["all of these"]["ess_given"] / largest["all of these"]["ess"] < 0.6
    rank = largest["stable_rank"]
    assert abs(rank["other"] - rank["ess"]) < 0.1
    assert min(rank["ess_given"] / rank["ess"], rank["other_given"] / rank["other"]) > 2 / 3
    assert largest["norm"]["other"] < -0.3 < 0.3 < largest["mean_decay"]["other"]
    for name in ("norm", "mean_decay"):
        assert abs(largest[name]["other_given"]) < abs(largest[name]["other"]) / 2
    assert abs(largest["attention_entropy"]["other"]) < 0.1
    decay = rows["regularisation", "mean_decay"]
    assert decay["other"] == pytest.approx(decay["ess"], abs=0.05)
    assert min(decay["ess_given"] / decay["ess"], decay["other_given"] / decay["other"]) > 1
    others = {name: abs(row["other"]) for (study, name), row in rows.items() if study == "regimes" and "other" in row}
    assert max(others, key=others.get) == "attention_entropy"
    assert rows["regimes", "attention_entropy"]["other"] < -0.3
    assert document["differences"]["correlation"] == 0.0


def test_a_partial_correlation_is_that_of_the_definition(drawn):
    _, noise = drawn
    x, y, z = (noise(np.random.default_rng(seed)) for seed in range(3))
    xy, xz, yz = (np.corrcoef(a, b)[0, 1] for a, b in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert beyond.partial(x, y, z[None]) == pytest.approx(expected)
    assert beyond.partial(x, y, np.zeros((1, 24))) == pytest.approx(xy)


def test_what_the_alternative_explains_is_not_found_again(drawn, monkeypatch):
    monkeypatch.setattr(beyond, "DRAWS", 199)
    groups, noise = drawn
    found = {"nothing": 0, "something": 0}
    for seed in range(200):
        generator = np.random.default_rng(seed)
        z = noise(generator)
        x, y = (z + 0.5 * noise(generator) for _ in range(2))
        found["nothing"] += beyond.permuted_p(x, y, z[None], groups) <= 0.05
        found["something"] += beyond.permuted_p(x, y + x, z[None], groups) <= 0.05
    # At 5 %, 19 of 200 are passed in 4 of 1,000 designs.
    assert found["nothing"] <= 19
    assert found["something"] >= 180


def test_runs_are_repeated_and_their_mixers_measured():
    run = next(run for run in Regimes().runs(Regimes().preset("smoke")) if run.model.mixer == "gla")
    found = alternatives.measured(run)
    assert found == alternatives.measured(run)
    assert 1 < found["attention_entropy"] < run.task.length
    assert 1 <= found["stable_rank"] <= run.model.key_size
    assert 0 < found["mean_decay"] < 1
