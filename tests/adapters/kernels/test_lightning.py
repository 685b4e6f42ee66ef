from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles.impulses import output_of, part_arguments
from oracles.recurrent_models import InDouble, observations, reproduction_error, tiny_model, tokens

import statesize as ss
from statesize.adapters.kernels import recurrent_layers
from statesize.codes import joined


def test_operators_are_what_the_module_computed() -> None:
    model = tiny_model("minimax")
    module: Any = model.get_submodule("model.layers.0.self_attn")
    with part_arguments(module) as arguments, part_arguments(module.qkv_proj) as projected:
        (observation,) = observations(model, tokens(), recurrent_layers.observing_lightning)
    assert (observation.name, observation.kind) == ("model.layers.0.self_attn", "lightning attention")
    assert reproduction_error(observation) < 1e-5
    operator = observation.operator(slice(None))
    assert int(operator.state_size()[0]) == observation.state_size == 8
    # The impulse at position j is sequence j, the same for every head and channel.
    activated = module.act_fn(projected["output"][:1]).unflatten(-1, (4, 24)).repeat(21, 1, 1, 1)
    activated[..., 16:] = torch.eye(21)[..., None, None]
    module.act_fn = torch.nn.Identity()
    del arguments["output"], arguments["hidden_states"]
    with torch.no_grad(), part_arguments(module.norm) as mixed, output_of(module.qkv_proj, activated.flatten(-2)):
        module(hidden_states=torch.zeros(21, 21, 32), **arguments)
    expected = mixed["0"].unflatten(-1, (4, 8))[..., 0].permute(2, 1, 0)
    torch.testing.assert_close(operator.dense()[0].float(), expected, rtol=1e-4, atol=1e-5)


def test_in_double_precision_the_model_and_its_operators_agree_to_round_off() -> None:
    model = tiny_model("minimax").double()
    with InDouble():
        (observation,) = observations(model, tokens(length=300, sequences=1), recurrent_layers.observing_lightning)
    # The decays are buffers that were computed in float32.
    assert reproduction_error(observation) < observation.tolerance == 1e-6


@pytest.mark.parametrize("again", [torch.bfloat16, torch.float32])
def test_rounded_decays_are_told_and_leave_the_operator_that_of_exact_ones(again: torch.dtype) -> None:
    model = tiny_model("minimax").bfloat16().to(again)
    module: Any = model.get_submodule("model.layers.0.self_attn")
    with part_arguments(module.qkv_proj) as projected:
        (captured,) = ss.capture(model, tokens(sequences=1), layers="model.layers.0.self_attn")
    assert 1e-6 < captured.operator_difference < 1e-2
    assert "Its decays are rounded by up to" in joined(captured.notes)
    query, key, _ = module.act_fn(projected["output"].double()).unflatten(-1, (4, 24)).transpose(1, 2).split(8, -1)
    distance = torch.arange(21)[:, None] - torch.arange(21)
    expected = (query @ key.mT * torch.exp(-module.slope_rate.double() * distance)).tril()
    torch.testing.assert_close(
        captured.operator.dense()[0], expected[0], rtol=0, atol=1e-2 * float(expected.abs().max())
    )
