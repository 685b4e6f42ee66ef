import json

from benchmarks import plans


def test_a_plan_stands_beside_what_the_profile_took(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "CASES", ((1, 24, 1, None), (2, 24, 2, [0])))
    plans.main(tmp_path / "plans.json", ["gla"])
    rows = json.loads((tmp_path / "plans.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["texts"], row["tolerances"]) for row in rows] == [(1, 1), (2, 2)]
    assert all(min(row["plan"], row["predicted"], row["profile"]) > 0 for row in rows)
