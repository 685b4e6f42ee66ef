"""Layers in which nothing was observed are reported, with what to do."""

from oracles.attention_models import attention_model, token_ids
from torch import nn

from statesize import capture
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.select import skipped_layers
from statesize.codes import Code, Note


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Linear(32, 32)

    def forward(self, hidden_states, **_):
        return hidden_states + self.mean(hidden_states.cummax(1)[0]), None


def test_an_unknown_mixer_is_measured_by_its_derivative_however_large():
    model = attention_model("llama")
    model.model.layers[1].self_attn = Unknown()
    for ids in (token_ids(), token_ids().repeat(1, 20)):
        captured = capture(model, ids)
        assert [mixer.kind for mixer in captured.mixers] == ["attention", "derivative"]
    assert [type(item.operator).__name__ for item in captured] == ["SoftmaxAttention", "Derivative"]
    assert captured.skipped == {}


def test_a_layer_that_is_not_called_says_so():
    model = attention_model("llama")
    model.model.config.num_hidden_layers = 1
    assert capture(model, token_ids()).skipped == {
        "model.layers.1": Note(Code.NOT_CALLED, "LlamaDecoderLayer: the forward pass does not call it")
    }


def test_lists_inside_of_layers_are_part_of_them():
    layer = nn.Module()
    layer.experts = nn.ModuleList([nn.Module(), nn.Module()])
    model = nn.Module()
    model.layers, model.heads = nn.ModuleList([layer]), nn.ModuleList([nn.Module(), nn.Module()])
    model.projections = nn.ModuleList([nn.Linear(2, 2)])  # no list of layers
    # One expert ran, and no head.
    called = {"layers.0", "layers.0.experts.0", "projections.0"}
    assert skipped_layers(named_parts(model), called, ["layers.0.attention"]) == {}
    # Lists beside the layers are lists of their own.
    called |= {"heads.0"}
    assert list(skipped_layers(named_parts(model), called, ["layers.0.attention", "heads.0"])) == ["heads.1"]
