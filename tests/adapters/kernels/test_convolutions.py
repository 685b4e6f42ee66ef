from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles.impulses import output_of, part_arguments
from oracles.recurrent_models import FAMILIES, observations, reproduction_error, tiny_model, tokens
from torch import nn
from transformers.models.mamba.modeling_mamba import causal_conv1d_fn

from statesize import Convolution, measure
from statesize.adapters.kernels import convolutions
from statesize.adapters.replaced import ReplacedCall

CONVOLVED = [family for family, (_, (kind, _)) in FAMILIES.items() if kind == "short convolution"]
NAME = "model.layers.0.conv"
# How many are observed in the models of a family.
INNER = {
    "mamba": 2,
    "zamba": 4,
    "mamba2": 2,
    "nemotron_h": 1,
    "qwen3_next": 3,
    "kimi_linear": 1,
    "recurrent_gemma": 2,
    "lfm2": 0,
}


@pytest.mark.parametrize("family", CONVOLVED)
def test_operators_are_what_the_module_computed(family: str) -> None:
    model = tiny_model(family)
    module: Any = model.get_submodule(NAME)
    with part_arguments(module.in_proj) as projected:
        (observation,) = observations(model, tokens(), convolutions.observing)
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
    (observation,) = observations(model, tokens(), convolutions.observing)
    operator = observation.operator(slice(0, 5))
    found = measure(operator, tolerances=(), relative_tolerances=(1e-9,))
    assert observation.state_size == int(found.ceiling.max()) == 2
    assert bool((found.relative_count[..., 1:-1, 0] == 2).all())


def test_a_bias_passes_the_output_gate_only() -> None:
    model = tiny_model("lfm2")
    convolution: Any = model.get_submodule(f"{NAME}.conv")
    convolution.bias = nn.Parameter(torch.linspace(-1, 1, 32))
    (observation,) = observations(model, tokens(), convolutions.observing)
    assert reproduction_error(observation) < 1e-5
    units = torch.tensor([7, 2])
    part = observation.passed_on(observation.operator(units).apply(observation.values[:, units].double()), units)
    torch.testing.assert_close(part, observation.mixed[:, units].double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "number"), INNER.items())
def test_inner_operators_are_what_the_model_computed(family: str, number: int) -> None:
    seen = [found for found in observations(tiny_model(family), tokens(), convolutions.observing) if found.inner]
    assert [observation.kind for observation in seen] == ["short convolution"] * number
    for observation in seen:
        operator = observation.operator(slice(None))
        assert observation.name.endswith((".conv1d", ".conv_1d"))
        assert isinstance(operator, Convolution)
        assert operator.batch_shape == observation.values.shape[:2]
        assert int(operator.state_size()[0]) == observation.state_size == 3
        assert reproduction_error(observation) < 1e-5
        units = torch.tensor([3, 0])
        part = observation.passed_on(observation.operator(units).apply(observation.values[:, units].double()), units)
        torch.testing.assert_close(part, observation.mixed[:, units].double(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_kernel_that_a_mixer_computes_without_bias_or_activation() -> None:
    generator = torch.Generator().manual_seed(0)
    values, weight = torch.randn(2, 5, 9, generator=generator), torch.randn(5, 4, generator=generator)
    arguments = {"hidden_states": values, "weight": weight, "bias": None, "activation": None}
    output = causal_conv1d_fn(**arguments)
    mixer = nn.Conv1d(5, 5, 4, groups=5)
    observation = convolutions.causal_convolution(ReplacedCall("layers.0.mixer", mixer, arguments, output))
    # No part holds the weight, so it goes by the name that all models give it.
    assert observation.name == "layers.0.mixer.conv1d"
    assert observation.values.shape[:2] == (2, 5)
    assert reproduction_error(observation) < 1e-5
