"""T of recurrences and short convolutions against their formulas and against impulses through their own scans."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oracles.observed_kernels import InDouble, observations, reproduction_error
from oracles.tiny_families import tiny, token_ids
from torch import Tensor, nn

import statesize as ss
from statesize.adapters.kernels import recurrent_layers
from statesize.adapters.kernels.scans import rwkv_attention
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.observation import ModuleStack
from statesize.adapters.replaced import MixerCall, PartCall, ReplacedCall
from statesize.codes import joined
from statesize.errors import ModelError


@pytest.mark.parametrize("memory", [-20.0, 5.0])
def test_in_double_precision_rg_lru_and_its_operators_agree_to_round_off(memory):
    model = tiny("recurrent_gemma").double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("recurrent_param"):
                parameter.fill_(memory)
    with InDouble():
        seen = observations(model, token_ids(1, 300), recurrent_layers.observing_rg_lru)
    assert max(map(reproduction_error, seen)) < 1e-6


def test_a_document_that_begins_within_the_sequence_forgets_what_came_before():
    model = tiny("recurrent_gemma")
    positions = torch.cat([torch.arange(8), torch.arange(13)])[None]
    seen: list[Any] = []
    with (
        torch.no_grad(),
        ModuleStack(named_parts(model), 21).watching() as running,
        recurrent_layers.observing_rg_lru((), running, lambda make, product=None: seen.append(make())),
    ):
        model(input_ids=token_ids(1, 21), position_ids=positions, use_cache=False)
    assert not bool(seen[0].operator(slice(None)).dense()[..., 8:, :8].any())
    assert reproduction_error(seen[0]) < 1e-5


@pytest.mark.parametrize("forget", [-40.0, 0.0, 12.0])
def test_long_sequences_agree_with_the_mlstm_definition(forget):
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 300, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    write = 15 * torch.randn(1, 2, 300, generator=generator, dtype=torch.float64)
    gate = torch.full_like(write, forget)
    observation = recurrent_layers.mlstm(_mlstm_call(query, key, write, gate))
    torch.testing.assert_close(
        observation.operator(slice(None)).dense(), _mlstm_definition(query, key, write, gate), rtol=1e-8, atol=1e-10
    )


def test_a_call_that_goes_on_from_a_state_is_refused():
    vectors, gates = torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3)
    call = _mlstm_call(vectors, vectors, gates, gates)
    call.parts["mlstm_backend"].kwargs["c_initial"] = torch.zeros(1, 2, 4, 4)
    with pytest.raises(ModelError):
        recurrent_layers.mlstm(call)


def _mlstm_call(query: Tensor, key: Tensor, write: Tensor, forget: Tensor) -> MixerCall:
    layer: Any = nn.Module()
    layer.mlstm_backend = SimpleNamespace(config=SimpleNamespace(eps=1e-6))
    arguments = {"query": query, "key": key, "value": key, "igate": write, "fgate": forget}
    return MixerCall("layer", layer, {"mlstm_backend": PartCall((), arguments, (key, None))})


def _mlstm_definition(query: Tensor, key: Tensor, write: Tensor, forget: Tensor) -> Tensor:
    """The parallel form, equations 75 to 77 of arXiv 2405.04517, with the stabiliser of a state that begins at 0."""
    total = torch.nn.functional.logsigmoid(forget).cumsum(-1)
    exponent = total[..., :, None] - total[..., None, :] + write[..., None, :]
    exponent = exponent.masked_fill(torch.ones(exponent.shape[-2:]).triu(1).bool(), -torch.inf)
    largest = torch.maximum(exponent.amax(-1), total)
    scores = query @ key.mT / key.shape[-1] ** 0.5 * torch.exp(exponent - largest[..., None])
    return scores / (torch.maximum(scores.sum(-1).abs(), torch.exp(-largest)) + 1e-6)[..., None]


# Logarithms of w: a channel that forgets nothing, usual ones, and one that only sees the previous token.
DECAYS = torch.tensor([-12.0, -3.0, 0.0, 3.0, 4.5, 8.0], dtype=torch.float64)


def _rwkv_definition(call: ReplacedCall) -> Tensor:
    """Softmax over k_j − (t − 1 − j) w for j < t and u + k_t for j = t, (channels, L, L)."""
    key, decay, first = (call.arguments[name] for name in ("key", "time_decay", "time_first"))
    length = key.shape[1]
    lag = torch.arange(length)[:, None] - torch.arange(length)
    past = key[0].T[:, None] - (lag - 1) * decay.exp()[:, None, None]
    present = torch.diag_embed((key[0] + first).T)
    logits = torch.where(lag > 0, past, torch.where(lag == 0, present, -torch.inf))
    return logits.softmax(-1)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_rows_are_a_softmax_whatever_the_decay(scale):
    key = scale * torch.randn(1, 300, len(DECAYS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, ones = torch.linspace(-5, 5, len(DECAYS), dtype=torch.float64), torch.ones_like(key)
    arguments = {"time_decay": DECAYS, "time_first": first, "key": key, "value": ones, "state": None}
    call = ReplacedCall("attention", nn.Identity(), arguments, ones)
    observation = rwkv_attention(call)
    operator = observation.operator(slice(None))
    # Numerator, denominator and running maximum of each of six channels, in float32.
    assert (observation.state_bytes, int(operator.state_size().max())) == (3 * 6 * 4, 1)
    torch.testing.assert_close(operator.dense()[0], _rwkv_definition(call), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("again", [torch.bfloat16, torch.float32])
def test_rounded_decays_are_told_and_leave_the_operator_that_of_exact_ones(again):
    model = tiny("minimax").bfloat16().to(again)
    module: Any = model.get_submodule("model.layers.1.self_attn")
    projected: list[Any] = []
    with module.qkv_proj.register_forward_hook(lambda _, args, output: projected.append(output)):
        (captured,) = ss.capture(model, token_ids(1, 21), layers="model.layers.1.self_attn")
    assert 1e-6 < captured.operator_difference < 1e-2
    assert "Its decays are rounded by up to" in joined(captured.notes)
    query, key, _ = module.act_fn(projected[-1].double()).unflatten(-1, (3, 24)).transpose(1, 2).split(8, -1)
    distance = torch.arange(21)[:, None] - torch.arange(21)
    expected = (query @ key.mT * torch.exp(-module.slope_rate.double() * distance)).tril()
    torch.testing.assert_close(
        captured.operator.dense()[0], expected[0], rtol=0, atol=1e-2 * float(expected.abs().max())
    )


def test_a_bias_passes_the_output_gate_only():
    model = tiny("lfm2")
    convolution: Any = model.get_submodule("model.layers.0.conv.conv")
    convolution.bias = nn.Parameter(torch.linspace(-1, 1, 24))
    (observation,) = observations(model, token_ids(length=21), recurrent_layers.observing_convolutions)
    assert observation.state_size == 2  # three taps
    assert reproduction_error(observation) < 1e-5
    units = torch.tensor([7, 2])
    part = observation.passed_on(observation.operator(units).apply(observation.values[:, units].double()), units)
    torch.testing.assert_close(part, observation.mixed[:, units].double(), rtol=1e-4, atol=1e-5)
