"""GLA and Gated DeltaNet of flash-linear-attention with fewer numbers of state, by its kernels, interpreted."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from statesize.reduction.bases import KeptBasis
from statesize.reduction.hub import FAMILIES
from statesize.reduction.reducible import smaller_gla

SCRIPT = Path(__file__).parents[1] / "oracles" / "fla_cut.py"


class KeysLikeGLA(nn.Module):
    """The projection of keys of GLA, of the size that fla finds in its configuration."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        size = int(config.hidden_size * config.expand_k)
        self.attn = nn.ModuleDict(
            {name: nn.Linear(config.hidden_size, size, bias=False) for name in ("q_proj", "k_proj")}
        )


def test_a_smaller_gla_has_the_size_that_it_is_cut_to():
    settings = {"hidden_size": 704, "expand_k": 64 / 704, "num_heads": 4, "num_kv_heads": None, "feature_map": None}
    model = KeysLikeGLA(SimpleNamespace(**settings))
    basis = KeptBasis(torch.zeros(17), tuple(range(16)))
    for states in range(1, 16):
        cut = smaller_gla(model, {"attn": [basis] * 4}, states)
        assert cut.attn["k_proj"].weight.shape == (4 * states, 704)
        assert FAMILIES["gla"].states(cut.config) == states


@pytest.mark.skipif(importlib.util.find_spec("fla") is None, reason="flash-linear-attention is not here")
@pytest.mark.parametrize(
    ("kind", "method", "made"),
    [
        ("gla", "selection with corrected read-out", "GLAForCausalLM"),
        ("gla-conv", "selection", "GLAForCausalLM"),
        ("gated_deltanet", "orthonormal basis", "ProjectedGatedDeltaNetForCausalLM"),
    ],
)
def test_a_model_is_cut_saved_loaded_and_measured(kind, method, made, tmp_path):
    # Fla changes what it imports for a whole process, so that it has one of its own.
    command = [sys.executable, "-O", str(SCRIPT), kind, str(tmp_path / "cut")]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["method"] == f"{method}, equal sizes"
    assert found["bytes"][0] == 4 * found["bytes"][1]
    assert found["kind"] == made
    # A corrected read-out of all numbers is their estimate from themselves, of few tokens here.
    assert found["unchanged"] < (0.05 if kind == "gla" else 1e-4)
    # What the norm of the outputs adds to squares is not scaled with them.
    assert found["projected"] < (1e-3 if kind == "gla-conv" else 1e-4)
    assert found["whole"] > 1e-2
    assert found["loaded"] == 0
    assert found["stepped"] < 1e-4
    assert found["tss"] == 4
