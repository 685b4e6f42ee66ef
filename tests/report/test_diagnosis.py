"""How much of its state each layer of a profile uses, in words."""

import numpy as np
import pytest
import torch

import statesize as ss
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.report.diagnosis import diagnose


def profile_of(mixer, length, **asked):
    shape = ModelConfig(mixer=mixer, vocabulary_size=16, width=16, heads=2, layers=1, key_size=4)
    model = LanguageModel(shape, torch.Generator().manual_seed(0)).eval()
    tokens = torch.randint(16, (2, length), generator=torch.Generator().manual_seed(1))
    return ss.profile(model, tokens, **asked)


def test_a_state_is_judged_where_it_is_the_limit():
    profile = profile_of("gla", 24)
    (found,) = diagnose(profile)
    node = profile.mixer(found.layer)
    inside = slice(4, 21)
    entropy = node["entropy"].values[..., inside].mean()
    counts = node["relative_count"].values[..., inside, 0].mean()
    assert (found.size, found.cuts, found.keeps_everything) == (4, 2 * 17, False)
    assert found.entropy == pytest.approx(entropy, rel=1e-6)
    assert found.directions == pytest.approx(counts, rel=1e-6)
    assert str(found) == (
        f"layers.0.mixer: {entropy:.1f} of 4 by entropy, {counts:.1f} of 4 directions above 1 %, over 34 cuts"
    )
    (row,) = profile.summary_rows()
    assert row["state_utilisation"] == pytest.approx(found.entropy / 4, rel=1e-6)
    assert np.isnan(row["ceiling_utilisation"])


def test_a_cache_is_judged_against_its_ceiling_in_the_middle_half():
    profile = profile_of("sa", 24)
    (found,) = diagnose(profile)
    node = profile.mixer(found.layer)
    ceiling = node["ceiling"].values[0, 6:19]
    assert (found.size, found.cuts, found.keeps_everything) == (pytest.approx(ceiling.mean()), 2 * 13, True)
    assert " of at most 8.8 by entropy, " in str(found)
    (row,) = profile.summary_rows()
    shares = node["entropy"].values[..., 6:19] / ceiling
    assert row["ceiling_utilisation"] == pytest.approx(shares.mean(), rel=1e-6)
    assert np.isnan(row["state_utilisation"])


def test_a_text_can_be_too_short_to_tell():
    profile = profile_of("gla", 7)
    (found,) = diagnose(profile)
    assert (found.cuts, found.size) == (0, 4)
    assert str(found) == "layers.0.mixer: no measured cut has 4 tokens before it and 4 after it"
    assert np.isnan(profile.summary_rows()[0]["state_utilisation"])
    (beside,) = diagnose(profile_of("sa", 24, positions=[2]))
    assert str(beside) == "layers.0.mixer: nothing was measured in the middle half of a sequence"


def test_no_verdict_without_a_task():
    words = " ".join(str(found) for mixer in ("gla", "sa", "s6") for found in diagnose(profile_of(mixer, 40)))
    assert not any(word in words for word in ("saturated", "collapsed", "full", "idle", "unused"))


def test_a_profile_without_relative_tolerances():
    (found,) = diagnose(profile_of("gla", 24, relative_tolerances=()))
    assert found.tolerance is None
    assert "directions" not in str(found)
