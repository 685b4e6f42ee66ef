"""A model whose heads keep states of several sizes: no number takes the largest for that of all."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import statesize as ss
from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings
from statesize.report.charts import bars
from statesize.report.document import cell_text
from statesize.report.head_map import layer_cells
from statesize.report.words import headline
from statesize.results.summary import at_middle, ess_values

SIZES = np.array([[1, 7, 2, 2], [8, 3, 5, 4]])
MEANS = [3, 5]


@pytest.fixture(scope="module", params=["gla", "gated-deltanet"])
def smaller(request):
    config = ModelConfig(request.param, 16, width=16, heads=4, layers=2, key_size=8, convolution_size=1)
    model = LanguageModel(config, torch.Generator().manual_seed(0)).eval()
    ids = torch.randint(0, 16, (2, 40), generator=torch.Generator().manual_seed(1))
    for block, sizes in zip(model.blocks, SIZES.tolist(), strict=True):
        block.mixer.state_sizes = sizes
        # The query and key channels that a head does not have are 0.
        channels = block.mixer.projection.weight.data[: 2 * 4 * 8].view(2, 4, 8, 16)
        for head, size in enumerate(sizes):
            channels[:, head, size:] = 0
    return model, ids


@pytest.fixture(scope="module")
def profile(smaller):
    return ss.profile(*smaller)


def shares_of(profile, means):
    """Mean ESS of each layer at the cuts that its largest state limits, as a share of the mean size of its heads."""
    for layer, mean in enumerate(means):
        node = profile.mixer(layer)
        binding = node["binds"].values[0] == 1
        yield ess_values(node, "entropy")[:, :, binding].mean() / mean


@pytest.mark.few(1)
def test_the_size_of_a_layer_is_the_mean_of_its_heads(profile):
    summary = profile.summary(wide=True)
    assert summary["tss"].tolist() == MEANS
    numbers = summary["tss"] * summary["units"] * 4  # 4 value channels for each head
    assert ss.compare([profile]).models[0].total_tss == numbers.sum()


def test_shares_are_of_the_mean_size(profile, tmp_path):
    expected = list(shares_of(profile, MEANS))
    profile.save(tmp_path / "kept")
    for one in (profile, ss.Profile.load(tmp_path / "kept")):
        np.testing.assert_allclose(one.summary(wide=True)["state_utilisation"], expected, rtol=1e-6)
    np.testing.assert_allclose([row["ceiling"] for row in bars(profile, "entropy")], MEANS)
    assert "of the 4 that it holds on average" in headline([profile])


def test_a_head_is_compared_with_its_own_size(profile):
    table = profile.to_dataframe()
    assert (table["ess"] <= table["ceiling"] + 1e-6).all()
    largest = table.groupby(["layer", "head"])["state_size"].max().to_numpy()
    np.testing.assert_array_equal(largest.reshape(2, 4), SIZES)
    for layer, sizes in enumerate(SIZES):
        node = profile.mixer(layer)
        cells = layer_cells(node, ("entropy",))
        assert cells["tss"] == sizes.tolist()
        middle = at_middle(node, ess_values(node, "entropy")).mean(0)
        np.testing.assert_allclose(cells["share"]["entropy"], middle / sizes, atol=1e-4)


def test_what_is_measured_of_some_heads_does_not_change_the_size(smaller):
    assert ss.profile(*smaller, channels=2).summary()["tss"].tolist() == MEANS


def test_a_growing_context_is_compared_with_the_size_of_each_head(smaller):
    model, settings, lengths = smaller[0], Settings(future=16), (2, 4, 16)
    texts = torch.randint(0, 16, (5, 32), generator=torch.Generator().manual_seed(2))
    found = ss.lab.length(model, texts, lengths=lengths, settings=settings, on_progress=lambda *_: None)
    ceilings = np.array([np.minimum(SIZES, length).mean(1) for length in lengths])
    told = [layer["ceiling"] for layer in found.to_dict()["layers"]]
    np.testing.assert_array_equal(told, [ceilings.mean(1), *ceilings.T])
    profile = ss.profile(model, texts, settings=replace(settings, positions=[16]))
    assert ss.compare([profile]).models[0].middle_ceiling == told[0][-1] == np.mean(MEANS)
    *_, table = found.page().tables
    last = {tuple(row[:2]): float(cell_text(row[-1]).partition(" of ")[2]) for row in table.rows}
    heads = [[last[layer, f"head {head}"] for head in range(4)] for layer in found.layers]
    np.testing.assert_array_equal(heads, SIZES)
    # A state of one number cannot grow, however much others of its layer can.
    assert found.exponent(found.layers[0], "head 0").shape == "near its ceiling"


@pytest.mark.few(1)
def test_a_truncation_keeps_no_more_than_a_head_has(smaller):
    model, ids = smaller
    result = ss.truncate(model, [ids[0]], tokens=40)
    assert result.ceiling == np.mean(MEANS)
    assert max(row.kept for row in result.rows) <= np.mean(MEANS)


@pytest.mark.few(1)
def test_sizes_that_a_mixer_cannot_have_are_refused(smaller):
    model, ids = smaller
    mixer = model.blocks[1].mixer
    kept = mixer.state_sizes
    try:
        for wrong in ((1, 2, 3), (9, 1, 1, 1), (0, 1, 1, 1), "1234", (1.5, 1, 1, 1)):
            mixer.state_sizes = wrong
            with pytest.raises(InputError, match=r"state_sizes of layers\.1\.mixer must be 4 whole numbers of 1 … 8"):
                ss.profile(model, ids)
    finally:
        mixer.state_sizes = kept
