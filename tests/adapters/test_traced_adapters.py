"""T of every adapter is the T that a trace reads out of the same module."""

import subprocess
import sys

import pytest
import torch
from oracles.attention_models import FAMILIES as ATTENTION
from oracles.attention_models import attention_model, token_ids
from oracles.tiny_families import tiny

import statesize as ss
from statesize.adapters.forward import Forward
from statesize.adapters.kernels import scans
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.module_call import first_calls
from statesize.adapters.replaced import source_files
from statesize.adapters.sources import SOURCES
from statesize.adapters.trace.trace import Trace

LENGTH = 13
FAMILIES = [
    *ATTENTION,
    *"diffllama mamba falcon_mamba jamba mamba2 bamba zamba2 falcon_h1 granitemoehybrid nemotron_h".split(),
    *"qwen3_next qwen3_5_text olmo_hybrid kimi_linear bailing_hybrid rwkv recurrent_gemma minimax xlstm".split(),
    *"lfm2 lfm2_moe lfm3".split(),
]


def made(family):
    return attention_model(family) if family in ATTENTION else tiny(family)


def test_every_adapter_and_every_kernel_is_among_the_families():
    # Those of flash-linear-attention, which runs on GPUs, are compared with its own code.
    asked = set().union(*(line[1] for line in SOURCES if not callable(line))) - {"fla"}
    named = set()
    for family in FAMILIES:
        parts = named_parts(made(family))
        named.update(*map(vars, source_files(parts)), (type(part).__name__ for _, part in parts))
    assert asked <= named
    assert scans.KERNELS.keys() <= named


@pytest.mark.few(8)
@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=pytest.mark.xfail(reason="the trace ends T at one of two softmax maps"))
        if family == "diffllama"
        else family
        for family in FAMILIES
    ],
)
@torch.no_grad()
def test_t_of_an_adapter_is_that_of_the_trace(family):
    model = made(family)
    forward = Forward.of(model, token_ids(1, LENGTH))
    captured = {item.name: item for item in ss.capture(model, token_ids(1, LENGTH))}
    modules = {module: name for name, module in forward.parts if name in captured}
    below = torch.ones(LENGTH, LENGTH).tril(-1).bool()
    for module, call in first_calls(forward, modules).items():
        own, mixing = captured[modules[module]].operator.dense()[0], Trace(call).mixing()
        # Units of equal T are one, in whatever order.
        difference = (own[:, None] - mixing.matrix[0])[..., below].abs().amax(-1)
        furthest = max(float(difference.amin(0).max()), float(difference.amin(1).max()))
        # The decays of MiniMax are buffers in float32.
        limit = 1e-7 if family == "minimax" else 1e-9
        assert furthest <= limit * float(own[..., below].abs().max())


IMPORTED = """
import sys, torch
from statesize import capture
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM
for model in (
    GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2)),
    MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1)),
):
    assert len(list(capture(model, torch.arange(8)[None]))) == 1
    print(*(name.partition("adapters.")[2] for name in sys.modules if "adapters." in name))
"""


def test_what_a_model_does_not_name_is_not_imported():
    ran = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    rooms = {"kernels", "fla", "trace"}
    gpt2, mamba = (
        {name for name in line.split() if name.partition(".")[0] in rooms and "." in name}
        for line in ran.stdout.splitlines()
    )
    attention = {"attention", "plain_attention", "probabilities"}
    assert {name for name in gpt2 if not name.startswith("trace.")} == {f"kernels.{name}" for name in attention}
    assert {"kernels.scans"} <= mamba
