"""Saturation and collapse of the layers of a profile."""

import pytest
import torch

import statesize as ss
from statesize.mixers import LanguageModel, ModelConfig
from statesize.profiling import Profile
from statesize.results.diagnosis import diagnose, regime_of


@pytest.fixture(scope="module")
def profile():
    model = LanguageModel(
        ModelConfig(mixer="gla", vocabulary_size=16, width=16, heads=2, layers=2, key_size=4),
        torch.Generator().manual_seed(0),
    ).eval()
    return ss.profile(model, torch.randint(16, (2, 24), generator=torch.Generator().manual_seed(1)))


def test_one_diagnosis_a_mixer(profile):
    found = diagnose(profile, "entropy")
    assert [one.layer for one in found] == list(profile.mixers)
    assert [one.utilisation for one in found] == pytest.approx([row["utilisation"] for row in profile.summary_rows()])
    node = profile.mixer(found[0].layer)
    relative = node["relative_tolerance"].values[..., 0][:, :, 1:] / node["ceiling"].values[:, None, 1:]
    assert diagnose(profile)[0].utilisation == pytest.approx(relative.mean(), rel=1e-6)


def test_words_come_with_thresholds(profile):
    share = diagnose(profile)[0].utilisation
    full = diagnose(profile, saturated=share - 0.01, collapsed=0.1)[0]
    idle = diagnose(profile, saturated=1.0, collapsed=min(share + 0.01, 0.999))[0]
    assert (full.regime, idle.regime) == ("saturated", "collapsed")
    assert "harder tasks need a larger one" in str(full)
    assert "collapsed up to 10%" in str(full)


def test_bad_arguments(profile):
    with pytest.raises(ss.InputError, match=r"collapsed and saturated must be .*, got \(0\.9, 0\.8\)"):
        diagnose(profile, collapsed=0.9)
    with pytest.raises(ss.InputError, match="metric must be 'relative_tolerance' or 'entropy', got 'norm'"):
        diagnose(profile, "norm")
    assert regime_of(0.8) == "saturated"


def test_a_profile_without_relative_tolerances(profile):
    tree = profile.to_xarray()
    for name in profile.mixers:
        tree[name] = tree[name].to_dataset().isel(relative_threshold=slice(0))
    bare = Profile(tree)
    with pytest.raises(ss.InputError, match="no relative tolerance; give metric='entropy'"):
        diagnose(bare)
    assert diagnose(bare, "entropy") == diagnose(profile, "entropy")
