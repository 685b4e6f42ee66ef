"""Layers of flash-linear-attention over its Triton kernels, in the interpreter."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from oracles.fla_layers import LAYERS
from torch import nn

import statesize as ss

pytestmark = pytest.mark.skipif(importlib.util.find_spec("fla") is None, reason="flash-linear-attention is not here")
ROOT = Path(__file__).parents[2]
MEASURED = {
    "gla": ("gla", 2, 16),
    "hgrn": ("hgrn", 64, 1),
    "retnet": ("retention", 2, 32),
    "linear_attention": ("linear attention", 2, 32),
    "lightnet": ("lightnet", 2, 32),
    "gated_deltanet": ("gated delta rule", 4, 32),
    "kda": ("kimi delta attention", 2, 32),
    "gated_deltaproduct": ("delta product", 2, 32),
    "gated_deltanet2": ("gated delta net 2", 2, 32),
    "precond_gated_deltanet": ("preconditioned delta rule", 2, 32),
    "momentum_deltanet": ("momentum delta rule", 2, 64),
    "rwkv6": ("rwkv6", 2, 16),
    "rwkv7": ("rwkv7", 2, 32),
    "gsa": ("gated slots", 2, 16),
    "abc": ("bounded memory", 2, 16),
    "mesa_net": ("mesa net", 2, 32),
    "based": ("based", 2, 273),
    "mamba": ("mamba", 96, 16),
    "mamba2": ("mamba2", 4, 16),
    "mamba2_groups": ("mamba2", 4, 16),
    "attention": ("attention", 4, None),
    "sliding_attention": ("sliding attention", 2, 8),
    "forgetting_attention": ("forgetting attention", 2, None),
    "deltaformer": ("deltaformer", 2, None),
    "comba": ("comba", 2, 32),
}


def sweep(length, *names):
    """Fla changes what it imports for a whole process, so that it has one of its own."""
    command = [sys.executable, "-O", str(ROOT / "tests" / "oracles" / "fla_sweep.py"), "kernels", str(length), *names]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}


@pytest.mark.timeout(0)  # the interpreter is slow
def test_layers_agree_with_the_kernels_of_fla():
    found = sweep(32, *MEASURED, "mom")
    for name, (kind, units, states) in MEASURED.items():
        one = found[name]
        assert (one["kind"], one["units"], one["state_size"], one["reason"]) == (kind, units, states, "")
        assert one["faithfulness"] < 2e-6
    assert "packs sequences of several lengths" in found["mom"]["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("length", [32, 72])
def test_the_table_is_what_the_sweep_finds(length):
    table = json.loads((ROOT / "results" / "families" / "fla.json").read_text("utf-8"))["layers"]
    for name, one in sweep(length, *LAYERS).items():
        kept = table[name][f"kernels {length}"]
        assert (one["kind"], one["reason"] == "") == (kept["kind"], kept["reason"] == "")


def running_mean(q, k, v, initial_state=None, reverse=False, beta=None, cu_seqlens=None, window_size=None):
    """A kernel that is in no table: T weighs all positions so far alike, in each sequence."""
    lengths = [v.shape[1]] if cu_seqlens is None else cu_seqlens.diff().tolist()
    v = v.flip(1) if reverse else v
    means = [part.cumsum(1) / torch.arange(1, part.shape[1] + 1)[:, None, None] for part in v.split(lengths, 1)]
    mixed = torch.cat(means, 1)
    return (mixed.flip(1) if reverse else mixed), None


def without_driver(q, k, v):
    """What Triton raises where it finds no GPU."""
    raise RuntimeError("0 active drivers ([]). There should only be one.")


def chunk_gsa(q, k, v, s, g):
    """Gated slot attention: slots of keys say which slots of values are read."""
    q, k, v, s, keep = (part.transpose(1, 2).unsqueeze(-2) for part in (q * q.shape[-1] ** -0.5, k, v, s, g.exp()))
    keys, values, mixed = 0, 0, []
    for t in range(q.shape[2]):
        keys = keep[:, :, t] * keys + k[:, :, t].mT * s[:, :, t]
        values = keep[:, :, t] * values + v[:, :, t].mT * s[:, :, t]
        mixed.append(((q[:, :, t] @ keys).softmax(-1) @ values.mT).squeeze(-2))
    return torch.stack(mixed, 1)


for kernel in (running_mean, without_driver, chunk_gsa):
    kernel.__module__ = "fla.ops.mine"


class Calling(nn.Module):
    """A layer of two heads that calls one of the kernels above by its name in this file."""

    def __init__(self, mixed):
        super().__init__()
        self.mixed = mixed

    def forward(self, hidden):
        return self.mixed(hidden.unflatten(-1, (2, -1))).flatten(-2)


def mean(**options):
    return Calling(lambda heads: running_mean(heads, heads, heads, **options)[0])


def packed(*bounds):
    """The same, with its sequences one behind the other."""

    def mixed(heads):
        flat = heads.flatten(0, 1)[None]
        return running_mean(flat, flat, flat, cu_seqlens=torch.tensor(bounds))[0].reshape(heads.shape)

    return Calling(mixed)


@pytest.fixture(autouse=True)
def imported():
    """Its kernels are watched where a model brought fla with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("fla")


def model(layer):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(20, 10), layer)


TOKENS = torch.arange(26).reshape(2, 13) % 20
MEANS = (torch.ones(13, 13) / torch.arange(1, 14)[:, None]).tril().double()


# What a window means to a kernel that is in no table is not known: the map says what it sees.
@pytest.mark.parametrize("layer", [mean(), mean(window_size=4), packed(0, 13, 26)])
def test_a_kernel_of_ones_own_is_given_impulses(layer):
    (captured,) = ss.capture(model(layer), TOKENS)
    assert (captured.name, captured.kind, captured.units, captured.multiplicity) == ("1", "running mean", 2, 5)
    torch.testing.assert_close(captured.operator.dense(), MEANS.expand(2, 2, 13, 13))
    assert captured.faithfulness < 1e-6


@pytest.mark.parametrize(
    "layer", [mean(initial_state=torch.zeros(1)), mean(beta=torch.ones(2, 13, 2, 5))], ids=["state", "strengths"]
)
def test_a_layer_whose_kernel_has_no_formula_is_given_impulses_itself(layer):
    (captured,) = ss.capture(model(layer), TOKENS)
    assert (captured.kind, captured.units, captured.multiplicity) == ("Calling", 1, 10)
    torch.testing.assert_close(captured.operator.dense().double(), MEANS.expand(2, 1, 13, 13))


def test_slots_keep_keys_beside_values():
    # Keys of 5 numbers and values of 4 in 3 slots.
    slots = Calling(lambda heads: chunk_gsa(heads, heads, heads[..., :4], heads[..., :3], -heads[..., :3].square()))
    (captured,) = ss.capture(model(slots), TOKENS)
    assert (captured.kind, captured.operator.state_size().max()) == ("gated slots", 3)
    assert captured.faithfulness < 2e-6
    assert captured.state_bytes == 2 * (5 + 4) * 3 * 4


REFUSED = {
    "must run forward in time": mean(reverse=True),
    "packs sequences of several lengths": packed(0, 10, 26),
    "must run where Triton does": Calling(lambda heads: without_driver(heads, heads, heads)),
}


@pytest.mark.parametrize("cause", REFUSED)
def test_what_has_no_T_is_refused(cause):
    with pytest.raises(ss.errors.ModelError, match=cause):
        next(ss.capture(model(REFUSED[cause]), TOKENS))


OWN_CACHES = """
import json, sys, torch
sys.path.append("tests")
from oracles.triton_interpreter import install_flash_attention, interpret_if_asked
install_flash_attention()
from fla.models import ForgettingTransformerConfig, MLAConfig, TransformerConfig
from transformers import AutoModelForCausalLM
import statesize as ss
interpret_if_asked()
sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_heads": 2, "fuse_norm": False}
sizes |= {"fuse_cross_entropy": False, "fuse_swiglu": False}
latent = {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "qk_head_dim": 24}
for config in (
    MLAConfig(**sizes, **latent, v_head_dim=16),
    TransformerConfig(**sizes, window_size=7),
    ForgettingTransformerConfig(**sizes),
):
    model, ids = AutoModelForCausalLM.from_config(config).eval(), torch.arange(3, 23)[None]
    (layer,) = ss.capture(model, ids)
    with torch.no_grad():
        kept = model(ids, use_cache=True).past_key_values[0]["attn_state"]
    print(json.dumps([layer.multiplicity, layer.state_bytes, sum(tensor.nbytes for tensor in kept)]))
"""


def test_bytes_of_attention_are_those_of_its_own_cache():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-O", "-c", OWN_CACHES]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    found = list(map(json.loads, done.stdout.splitlines()))
    # The values of latent attention are 16 wide, and zeros beside them are for the kernel alone.
    assert [multiplicity for multiplicity, _, _ in found] == [16, 16, 16]
    assert [told for _, told, _ in found] == [own for _, _, own in found]
