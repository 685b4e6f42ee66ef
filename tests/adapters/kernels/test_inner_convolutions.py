from __future__ import annotations

import pytest
import torch
from oracles.recurrent_models import observations, reproduction_error, tiny_model, tokens
from torch import nn
from transformers.models.mamba.modeling_mamba import causal_conv1d_fn

from statesize import Convolution
from statesize.adapters.kernels import inner_convolutions
from statesize.adapters.watching.kernel_functions import KernelCall

# How many are observed in the models of a family.
FAMILIES = {
    "mamba": 2,
    "zamba": 4,
    "mamba2": 2,
    "nemotron_h": 1,
    "qwen3_next": 3,
    "kimi_linear": 1,
    "recurrent_gemma": 2,
    "lfm2": 0,
}


@pytest.mark.parametrize(("family", "number"), FAMILIES.items())
def test_operators_are_what_the_model_computed(family: str, number: int) -> None:
    seen = observations(tiny_model(family), tokens(), inner_convolutions.observing)
    assert [(observation.kind, observation.inner) for observation in seen] == [("short convolution", True)] * number
    for observation in seen:
        operator = observation.operator(slice(None))
        assert observation.name.endswith((".conv1d", ".conv_1d"))
        assert isinstance(operator, Convolution)
        assert operator.batch_shape == observation.batch_shape
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
    observation = inner_convolutions.causal_convolution(KernelCall("layers.0.mixer", mixer, arguments, output))
    # No part holds the weight, so it goes by the name that all models give it.
    assert observation.name == "layers.0.mixer.conv1d"
    assert observation.batch_shape == (2, 5)
    assert reproduction_error(observation) < 1e-5
