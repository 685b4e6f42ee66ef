"""The profile as users hold it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import statesize as ss
from statesize.codes import Code, Note
from statesize.profiling import Profile


def test_the_share_of_a_cache_is_of_its_ceiling_in_the_middle_half():
    profile = ss.profile("sa", [list(range(5, 29)), list(range(29, 5, -1))])
    for row in profile.summary_rows():
        node = profile.mixer(row["layer"])
        shares = node["entropy"].values[..., 6:19] / node["ceiling"].values[0, 6:19]
        assert row["ceiling_utilisation"] == pytest.approx(shares.mean(), rel=1e-6)
        assert np.isnan(row["state_utilisation"])


def test_rows_are_the_callers_own(small_profile):
    before = small_profile.summary_rows()
    small_profile.summary_rows()[0]["kind"] = "changed"
    assert small_profile.summary_rows() == before


def test_long_form_has_one_row_a_number(small_profile):
    frame = small_profile.to_dataframe()
    # Two mixers and heads, 11 + 6 cuts, entropy and two thresholds of either tolerance.
    assert len(frame) == 2 * 2 * (11 + 6) * 5
    means = frame.query("metric == 'entropy'").groupby("layer", observed=True)["ess"].mean()
    rows = {row["layer"]: row["average_entropy"] for row in small_profile.summary_rows()}
    assert means.to_dict() == pytest.approx(rows)
    assert not frame["ess"].isna().any()
    assert list(frame)[:6] == ["layer", "head", "position", "ess", "metric", "threshold"]
    rows = frame.query("layer == 'layers.1.mixer' and sequence == 1 and head == 0 and position == 3")
    assert set(rows["metric"]) == {"entropy", "count", "relative_count"}
    mixer = small_profile.mixer("layers.1.mixer")
    entropy = rows[rows["metric"] == "entropy"].iloc[0]
    assert entropy["ess"] == mixer["entropy"].values[1, 0, 3]
    assert np.isnan(entropy["threshold"])
    assert (entropy["token_id"], entropy["token"]) == (1, "1")
    tolerance = rows[(rows["metric"] == "count") & (rows["threshold"] == 0.1)].iloc[0]
    assert tolerance["ess"] == mixer["count"].values[1, 0, 3, 1]
    assert tolerance["lower"] <= tolerance["ess"] <= tolerance["upper"]


def test_frozen_and_the_copy_is_a_copy(small_profile):
    with pytest.raises(dataclasses.FrozenInstanceError):
        small_profile.tree = None
    copy = small_profile.to_xarray()
    copy["layers.0.mixer"]["entropy"].values[:] = -1
    assert (np.nan_to_num(small_profile.mixer("layers.0.mixer")["entropy"].values) >= 0).all()


def test_a_note_of_several_layers_is_told_once(small_profile):
    tree = small_profile.to_xarray()
    for name in ("layers.0.mixer", "layers.1.mixer"):
        tree[name].attrs["notes"] = [Note(Code.VALUES, "it adds its input").to_json()]
    found = Profile(tree)
    layers = ["layers.0.mixer", "layers.1.mixer"]
    assert found.codes == [{"code": "values", "layers": layers, "sentence": "it adds its input"}]
    assert repr(found).count("it adds its input") == 1
    assert found.summary()["limits"].tolist() == [["values"]] * 2


def test_a_report_without_a_path_has_the_name_of_the_model(small_profile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert small_profile.called("who/model").to_html() == Path("model.html")
    assert Path("model.html").is_file()
