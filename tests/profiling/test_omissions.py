"""A layer that mixes positions and is not measured is told wherever the profile is."""

import html

import pytest
import torch
from oracles.tiny_families import tiny, token_ids
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

import statesize as ss
from statesize.codes import Code
from statesize.errors import ModelError, StatesizeWarning


class Attention(nn.Module):
    """Attention of one head, which sees the future where it is not causal."""

    def __init__(self, causal):
        super().__init__()
        self.project, self.causal = nn.Linear(8, 24), causal

    def forward(self, hidden):
        query, key, value = (part[:, None] for part in self.project(hidden).chunk(3, -1))
        return scaled_dot_product_attention(query, key, value, is_causal=self.causal)[:, 0]


class LM(nn.Module):
    """Attention of which some layers are not causal."""

    def __init__(self, causal):
        super().__init__()
        self.embedding, self.layers = nn.Embedding(40, 8), nn.ModuleList(map(Attention, causal))

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return hidden


IDS = torch.arange(24)[None] % 7
LOST = "layers.1"


def made(*causal):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LM(causal)


@pytest.fixture(scope="module")
def lacking():
    with pytest.warns(StatesizeWarning, match=rf"1 of 2 layers of LM could not be measured: {LOST}: .*must be causal"):
        return ss.profile(made(True, False), IDS)


def test_in_every_view(lacking, tmp_path):
    for one in (lacking, ss.Profile.load(lacking.save(tmp_path / "saved"))):
        (cause,) = one.not_measured.values()
        assert cause.code is Code.LOOKS_AHEAD or cause.code is Code.NOT_MEASURED
        assert str(cause) in repr(one)
        assert str(cause) in html.unescape(one._repr_html_())
        rows = one.summary().set_index("layer")
        assert rows.loc[LOST, ["kind", "limits"]].tolist() == ["not measured", [cause.code.value]]
        assert rows.loc[LOST].drop(["model", "kind", "limits"]).isna().all()
        assert one.headline.endswith("; 1 of 2 layers not measured.")
    whole = ss.profile(made(True, True), IDS, name="whole")
    assert "not measured" not in whole.headline
    assert ss.compare([whole, lacking]).notes == (
        "Not all layers were measured as a whole of LM; sums lack what was skipped.",
    )


class ByNumpy(nn.Module):
    def forward(self, hidden):
        return torch.from_numpy(hidden.detach().numpy().cumsum(1))


def test_a_refusal_names_the_layer():
    with pytest.raises(ModelError, match="Mixer 1 must"):
        ss.profile(nn.Sequential(nn.Embedding(40, 8), ByNumpy()), IDS)


def test_a_profile_that_is_finished_already_warns_too(tmp_path):
    for _ in range(2):
        with pytest.warns(StatesizeWarning) as caught:
            ss.profile(made(True, False), IDS, output=tmp_path / "stored")
        assert [warning.filename for warning in caught] == [__file__]


def test_layers_that_mix_nothing_are_not_missing():
    found = ss.profile(tiny("nemotron_h"), token_ids(1))
    assert found.attributes["skipped"]
    assert found.not_measured == {}
    assert "not measured" not in repr(found)
    assert not any("as a whole" in note for note in ss.compare([found, found]).notes)
