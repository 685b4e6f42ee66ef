import json

import pytest

from benchmarks import whole_models


def test_stages_add_up_to_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_models, "CASES", ((40, 1), (40, 2)))
    whole_models.main(tmp_path / "whole.json", ["gla"])
    rows = json.loads((tmp_path / "whole.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["tokens"], row["tolerances"]) for row in rows] == [(40, 1), (40, 2)]
    for row in rows:
        assert sum(row["stages"].values()) == pytest.approx(row["seconds"])
        assert all(row["stages"][stage] > 0 for stage in ("passes", "operators and checks", "measuring"))
