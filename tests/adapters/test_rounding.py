"""What a model's own arithmetic rounds is measured and told, and refused where it decides what the model computes."""

import pytest
import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

import statesize as ss
from statesize.codes import Code, Note
from statesize.errors import ModelError


def model_of(layer, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(100, 64), layer)


def random_ids(length):
    return torch.randint(0, 100, (1, length), generator=torch.Generator().manual_seed(0))


def large_scores(deviation):
    """A Qwen2 whose biases make large scores, as those of Qwen2.5's first layer."""
    shape = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**shape, num_attention_heads=4, num_key_value_heads=2)).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.bias.normal_(0, deviation)
            layer.self_attn.k_proj.bias.normal_(0, deviation)
    return model


@pytest.mark.parametrize("deviation", [1.0, 30.0, 60.0])
def test_large_scores_round_and_are_measured(deviation):
    captured = ss.capture(large_scores(deviation), random_ids(256))
    items = list(captured)
    assert (len(items), captured.skipped) == (2, {})
    for item in items:
        assert item.operator_difference < 1e-9
        assert item.faithfulness <= item.agreement.allowed
    # The bound is that of the scores, and tight where they are large.
    if deviation > 1:
        first = items[0]
        assert 1e-5 < first.faithfulness
        assert first.agreement.allowed < 10 * first.faithfulness


def test_what_float32_destroys_is_refused_by_its_cause():
    class Far(nn.Module):
        def forward(self, hidden):
            heads = (hidden * 1e-6 + 1).unflatten(-1, (8, 8)).transpose(1, 2)
            mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
            return mixed.transpose(1, 2).flatten(2) - 1

    with pytest.raises(ModelError) as refused:
        list(ss.capture(model_of(Far()), random_ids(40)))
    assert Note.of(refused.value).code is Code.ROUNDED


@pytest.mark.parametrize(
    ("dtype", "spelling"), [(torch.bfloat16, "module"), (torch.float32, "function"), (torch.float64, "operation")]
)
def test_the_eps_that_a_norm_takes_from_the_dtype_is_that_of_the_model(dtype, spelling):
    def norm(eps, hidden):
        return {
            "module": lambda: nn.RMSNorm(64, eps=eps, dtype=hidden.dtype)(hidden),
            "function": lambda: nn.functional.rms_norm(hidden, (64,), eps=eps),
            "operation": lambda: torch.rms_norm(hidden, (64,), None, eps),
        }[spelling]()

    class Small(nn.Module):
        def __init__(self, eps):
            super().__init__()
            self.project, self.eps = nn.Linear(64, 64, bias=False), eps
            nn.init.normal_(self.project.weight, std=3e-3)

        def forward(self, hidden):
            return norm(self.eps, self.project(hidden).cumsum(1))

    eps = torch.finfo(torch.float64 if dtype is torch.float64 else torch.float32).eps
    (by_default,), (named,) = (ss.capture(model_of(Small(eps)).to(dtype), random_ids(40)) for eps in (None, eps))
    assert by_default.agreement.difference == named.agreement.difference <= named.agreement.allowed
    torch.testing.assert_close(by_default.operator.dense(), named.operator.dense(), rtol=0, atol=0)
