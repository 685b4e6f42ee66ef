from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oracles.impulses import part_arguments
from oracles.recurrent_models import InDouble, observations, reproduction_error, tiny_model, tokens
from torch import Tensor, nn

import statesize as ss
from statesize.adapters.kernels import recurrent_layers
from statesize.adapters.replaced import MixerCall, PartCall
from statesize.errors import ModelError

BACKEND = "backbone.blocks.0.mlstm_layer.mlstm_backend"


def test_operators_are_what_the_backend_computed() -> None:
    model = tiny_model("xlstm")
    backend = model.get_submodule(BACKEND)
    with part_arguments(backend) as arguments:
        seen = observations(model, tokens(), recurrent_layers.observing_mlstm)
    assert [(observation.kind, observation.name) for observation in seen] == [
        ("mlstm", "backbone.blocks.0.mlstm_layer"),
        ("mlstm", "backbone.blocks.1.mlstm_layer"),
    ]
    assert max(map(reproduction_error, seen)) < 1e-5
    arguments.pop("output")
    impulses = torch.eye(21).expand(2, 4, 21, 21)
    with torch.no_grad():
        expected = backend(**{**arguments, "value": impulses})[0]
    operator = seen[0].operator(slice(None))
    torch.testing.assert_close(operator.dense().float(), expected, rtol=1e-4, atol=1e-5)
    assert int(operator.state_size()[0]) == seen[0].state_size == 4
    # Of each of four heads 4 × 8 numbers, four of the normaliser and the running maximum.
    assert seen[0].state_bytes == 4 * (4 * 8 + 4 + 1) * 4


def test_in_double_precision_the_model_and_its_operators_agree_to_round_off() -> None:
    model = tiny_model("xlstm").double()
    with InDouble():
        seen = observations(model, tokens(length=45), recurrent_layers.observing_mlstm)
    assert max(map(reproduction_error, seen)) < 1e-11


@pytest.mark.parametrize("forget", [-40.0, 0.0, 12.0])
def test_long_sequences_agree_with_the_definition(forget: float) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 300, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    write = 15 * torch.randn(1, 2, 300, generator=generator, dtype=torch.float64)
    gate = torch.full_like(write, forget)
    observation = recurrent_layers.mlstm(_call(query, key, write, gate))
    torch.testing.assert_close(
        observation.operator(slice(None)).dense(), _definition(query, key, write, gate), rtol=1e-8, atol=1e-10
    )


def test_a_call_that_goes_on_from_a_state_is_refused() -> None:
    vectors, gates = torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3)
    call = _call(vectors, vectors, gates, gates)
    call.parts["mlstm_backend"].kwargs["c_initial"] = torch.zeros(1, 2, 4, 4)
    with pytest.raises(ModelError, match=r"layer was called .*max_inference_chunksize"):
        recurrent_layers.mlstm(call)


def _call(query: Tensor, key: Tensor, write: Tensor, forget: Tensor) -> MixerCall:
    layer: Any = nn.Module()
    layer.mlstm_backend = SimpleNamespace(config=SimpleNamespace(eps=1e-6))
    arguments = {"query": query, "key": key, "value": key, "igate": write, "fgate": forget}
    return MixerCall("layer", layer, {"mlstm_backend": PartCall((), arguments, (key, None))})


def _definition(query: Tensor, key: Tensor, write: Tensor, forget: Tensor) -> Tensor:
    """The parallel form, equations 75 to 77 of arXiv 2405.04517, with the stabiliser of a state that begins at 0."""
    total = torch.nn.functional.logsigmoid(forget).cumsum(-1)
    exponent = total[..., :, None] - total[..., None, :] + write[..., None, :]
    exponent = exponent.masked_fill(torch.ones(exponent.shape[-2:]).triu(1).bool(), -torch.inf)
    largest = torch.maximum(exponent.amax(-1), total)
    scores = query @ key.mT / key.shape[-1] ** 0.5 * torch.exp(exponent - largest[..., None])
    return scores / (torch.maximum(scores.sum(-1).abs(), torch.exp(-largest)) + 1e-6)[..., None]


@pytest.mark.skipif(importlib.util.find_spec("xlstm") is None, reason="the package xlstm is not here")
def test_models_of_the_package_xlstm() -> None:
    import xlstm

    conv = {"conv1d_kernel_size": 4, "num_heads": 2}
    config = xlstm.xLSTMLMModelConfig(
        mlstm_block=xlstm.mLSTMBlockConfig(mlstm=xlstm.mLSTMLayerConfig(qkv_proj_blocksize=4, **conv)),
        slstm_block=xlstm.sLSTMBlockConfig(slstm=xlstm.sLSTMLayerConfig(backend="vanilla", **conv)),
        **{"context_length": 64, "num_blocks": 3, "embedding_dim": 32, "slstm_at": [1], "vocab_size": 50},
    )
    torch.manual_seed(0)
    capturing = ss.capture(xlstm.xLSTMLMModel(config), torch.randint(0, 50, (2, 40)))
    assert all(captured.faithfulness < 2e-6 for captured in capturing)
    assert {mixer.name.split(".")[2] for mixer in capturing.mixers} == {"0", "1", "2"}
