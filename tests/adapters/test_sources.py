"""Adapters of kernels are imported where the files of a model's layers name them."""

import subprocess
import sys

from statesize.adapters import sources
from statesize.adapters.kernels import scans

SCRIPT = """
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
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    rooms = {"kernels", "fla", "trace"}
    gpt2, mamba = (
        {name for name in line.split() if name.partition(".")[0] in rooms and "." in name}
        for line in ran.stdout.splitlines()
    )
    attention = {"attention", "plain_attention", "probabilities"}
    assert {name for name in gpt2 if not name.startswith("trace.")} == {f"kernels.{name}" for name in attention}
    assert {"kernels.scans"} <= mamba


def test_every_scan_is_a_name_by_which_its_file_is_found():
    assert scans.KERNELS.keys() < set(sources.SCANS)
