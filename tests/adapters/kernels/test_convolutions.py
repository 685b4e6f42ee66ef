from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles.impulses import output_of, part_arguments
from oracles.recurrent_models import FAMILIES, observations, reproduction_error, tiny_model, tokens
from torch import nn

from statesize import measure
from statesize.adapters.kernels.recurrent_layers import observing_convolutions

CONVOLVED = [family for family, (_, (kind, _)) in FAMILIES.items() if kind == "short convolution"]
NAME = "model.layers.0.conv"


@pytest.mark.parametrize("family", CONVOLVED)
def test_operators_are_what_the_module_computed(family: str) -> None:
    model = tiny_model(family)
    module: Any = model.get_submodule(NAME)
    with part_arguments(module.in_proj) as projected:
        (observation,) = observations(model, tokens(), observing_convolutions)
    assert (observation.name, observation.kind) == (NAME, "short convolution")
    assert reproduction_error(observation) < 1e-5
    # The impulse at position j is sequence j, the same for every channel; the gate behind is no part of T.
    gates = projected["output"][:1].repeat(21, 1, 1)
    gates[..., :32], gates[..., 32:64] = torch.eye(21)[..., None], 1
    with torch.no_grad(), part_arguments(module.out_proj) as mixed, output_of(module.in_proj, gates):
        module(torch.zeros(21, 21, 32))
    operator = observation.operator(slice(None))
    torch.testing.assert_close(operator.dense()[0].float(), mixed["0"].permute(2, 1, 0), rtol=1e-4, atol=1e-6)


def test_its_state_is_what_the_convolution_looks_back_on() -> None:
    model = tiny_model("lfm2")
    (observation,) = observations(model, tokens(), observing_convolutions)
    operator = observation.operator(slice(0, 5))
    found = measure(operator, tolerances=(), relative_tolerances=(1e-9,))
    assert observation.state_size == int(found.ceiling.max()) == 2
    assert bool((found.relative_count[..., 1:-1, 0] == 2).all())


def test_a_bias_passes_the_output_gate_only() -> None:
    model = tiny_model("lfm2")
    convolution: Any = model.get_submodule(f"{NAME}.conv")
    convolution.bias = nn.Parameter(torch.linspace(-1, 1, 32))
    (observation,) = observations(model, tokens(), observing_convolutions)
    assert reproduction_error(observation) < 1e-5
    units = torch.tensor([7, 2])
    part = observation.passed_on(observation.operator(units).apply(observation.values[:, units].double()), units)
    torch.testing.assert_close(part, observation.mixed[:, units].double(), rtol=1e-4, atol=1e-5)
