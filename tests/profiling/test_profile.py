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
