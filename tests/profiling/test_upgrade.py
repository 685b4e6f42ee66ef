"""Profiles of earlier versions are read."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from statesize.cli.document import profile_document
from statesize.profiling import Profile

# Written by statesize 0.1.0.dev0 of 19 November 2026, with its own code.
VERSION_1 = Path(__file__).with_name("version_1.zip")


@pytest.fixture
def old(tmp_path):
    with zipfile.ZipFile(VERSION_1) as archive:
        archive.extractall(tmp_path / "old")
    return tmp_path / "old"


def test_version_1_is_read(old):
    profile = Profile.load(old)
    first, second = profile.summary_rows()
    # What the version that wrote it printed.
    assert first["average_entropy"] == pytest.approx(1.162493, abs=1e-6)
    assert second["total_relative_tolerance"] == pytest.approx(11.2)
    assert second["utilisation"] == pytest.approx(0.960126, abs=1e-6)
    assert (first["units"], first["measured"], first["average_entropy_error"]) == (2, 2, 0.0)
    # Three numbers for each of eight channels, in float32.
    assert first["state_bytes"] == 3 * 8 * 4
    assert np.isnan(first["faithfulness"])
    assert profile_document(profile, None)["mixers"][0]["faithfulness"] is None
    assert profile.to_dataframe()["ess"].notna().all()


def test_version_1_is_saved_as_the_present_one(old, tmp_path):
    profile = Profile.load(old)
    profile.save(tmp_path / "new")
    assert Profile.load(tmp_path / "new").tree.identical(profile.tree)
    assert profile.to_html(tmp_path / "page.html").is_file()
