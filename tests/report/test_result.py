"""What every result has, from one mechanism."""

import json

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import statesize as ss
from statesize.errors import InputError
from statesize.report.comparison import compare


@pytest.fixture(params=["profile", "comparison"])
def result(request, small_profile):
    return small_profile if request.param == "profile" else compare([small_profile, small_profile])


def test_a_result_shows_itself(result, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    lines = repr(result).splitlines()
    assert lines[0] == result.headline
    assert f"<p>{result.headline.split('<')[0]}" in result._repr_html_()
    assert "<table>" in result._repr_html_()
    assert "<gla>" not in result._repr_html_()
    assert result.to_html(tmp_path / "page.html").read_text().endswith("</html>\n")
    written = result.to_json(tmp_path / "result.json")
    assert json.loads(written.read_text()) == json.loads(json.dumps(result.to_dict()))
    assert result.plot.layers().to_dict()["datasets"]["layers"]
    assert len(result.summary())
    assert f": see {result.all_numbers}." in " ".join(repr(result).split())


def test_an_operator_is_the_attention_of_its_head():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
        attn_implementation="eager",
    )  # fmt: skip
    model, ids = LlamaForCausalLM(config).eval(), torch.arange(6)[None]
    matrix = ss.profile(model, ids).operator(1, head=1)
    expected = model(ids, output_attentions=True).attentions[1][0, 1]
    np.testing.assert_allclose(matrix.values, expected.detach().numpy(), atol=1e-6)
    assert matrix.dims == ("output", "input")
    assert matrix["input_token"].values.tolist() == [str(at) for at in range(6)]
    with pytest.raises(InputError):
        ss.profile(model, ids).operator(1, head=2)


def test_a_stored_profile_has_no_model(small_profile, tmp_path):
    loaded = ss.Profile.load(small_profile.save(tmp_path / "profile"))
    with pytest.raises(InputError):
        loaded.operator(0)
