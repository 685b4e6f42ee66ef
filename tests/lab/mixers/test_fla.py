"""Layers of flash-linear-attention as mixers: measured, trained, and the same as its kernels."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import statesize as ss
from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel, ModelConfig, load_checkpoint, save_checkpoint
from statesize.lab.mixers.registry import FLA_MIXERS

needs_fla = pytest.mark.skipif(importlib.util.find_spec("fla") is None, reason="flash-linear-attention is not here")
KINDS = {
    "fla:delta_net": "delta rule",
    "fla:gated_deltanet": "gated delta rule",
    "fla:rwkv7": "rwkv7",
    "fla:mamba2": "mamba2",
}
# A layer as fla runs it, in the interpreter of Triton, and as a mixer.
COMPARE = """
import json, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
import torch
from oracles.flash_attention import install_flash_attention
install_flash_attention()
import fla.layers.simple_gla
from statesize.adapters.models.triton_interpreter import interpret_if_asked
from statesize.lab.mixers import ModelConfig
from statesize.lab.mixers.fla import layers
interpret_if_asked()
torch.manual_seed(0)
mixer = layers.FlaMixer(ModelConfig(width=32, heads=2, key_size=16, layers=2), {name!r})
with torch.no_grad():
    for weight in mixer.parameters():
        weight += 0.1 * torch.randn_like(weight)
hidden = torch.randn(2, 40, 32)
with torch.no_grad():
    in_torch = mixer.eval()(hidden)
    # Without what has it run in torch, the layer calls its kernels.
    mixer.layer._forward_pre_hooks.clear()
    kernels = mixer.layer(hidden)[0]
print(json.dumps([(kernels - in_torch).abs().max().item(), kernels.abs().max().item()]))
"""


def build(name, layers=1):
    shape = ModelConfig(mixer=name, vocabulary_size=20, width=16, heads=2, layers=layers, key_size=8)
    return LanguageModel(shape, torch.Generator().manual_seed(0))


def test_the_names_are_those_of_the_layers():
    assert tuple(FLA_MIXERS) == tuple(KINDS)


def test_keys_of_rwkv7_are_as_large_as_its_values():
    with pytest.raises(InputError, match=r"key_size must be width / heads = 32 for 'fla:rwkv7', got 16"):
        LanguageModel(ModelConfig(mixer="fla:rwkv7", heads=4, width=128, key_size=16))


@pytest.mark.skipif(importlib.util.find_spec("fla") is not None, reason="flash-linear-attention is here")
@pytest.mark.parametrize("name", FLA_MIXERS)
def test_without_fla_the_extra_is_named(name):
    with pytest.raises(InputError, match=rf"got '{name}', a layer of flash-.*pip install 'statesize\[fla\]'"):
        build(name)


@needs_fla
@pytest.mark.parametrize("name", FLA_MIXERS)
def test_they_are_measured_and_trained(name, tmp_path):
    model, tokens = build(name, layers=2), torch.arange(38).reshape(1, 38) % 20
    for captured in ss.capture(model, tokens):
        assert (captured.kind, captured.units, captured.operator.state_size().max()) == (KINDS[name], 2, 8)
        assert captured.faithfulness < 2e-6
    before = model(tokens)
    assert torch.equal(build(name, layers=2)(tokens), before)
    save_checkpoint(model, tmp_path / "kept")
    assert torch.equal(load_checkpoint(tmp_path / "kept")(tokens), before)
    model(tokens).square().sum().backward()
    # RWKV-7 starts with an output projection of 0, which holds back all other gradients of the layer.
    kept = [weight.grad for key, weight in model.named_parameters() if name != "fla:rwkv7" or "o_proj" in key]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in kept)


@needs_fla
@pytest.mark.slow
@pytest.mark.parametrize("name", FLA_MIXERS)
def test_in_torch_they_are_what_their_kernels_are(name):
    code = COMPARE.format(tests=str(Path(__file__).parents[2]), name=name)
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    difference, largest = json.loads(done.stdout.splitlines()[-1])
    assert difference < 2e-6 * largest
