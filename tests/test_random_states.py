"""No public call advances a random state of the process: random, numpy's and torch's, or imports torch's compiler."""

import subprocess
import sys

# In a process of its own, where each call is the first of its kind: packages draw numbers where they are imported.
CALLS = """
import random, sys, tempfile
import numpy as np
import torch

def states():
    return random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()

def unchanged(name, call):
    before = states()
    result = call()
    for package, old, new in zip(("random", "numpy", "torch"), before, states(), strict=True):
        if old != new:
            print(f"{name} changes the random state of {package}")
    return result

np.set_printoptions(threshold=sys.maxsize)
folder = tempfile.mkdtemp()
torch.manual_seed(7)
import statesize as ss

model, tokenizer = unchanged("load", lambda: ss.load("gla"))
ids = torch.arange(3, 43)[None]
for item in unchanged("capture", lambda: ss.capture(model, ids)):
    unchanged("operator", lambda: item.operator)
unchanged("measure", lambda: ss.measure(item.operator[0, 0]))
unchanged("reduce", lambda: ss.reduce(item.operator[0, 0], state_size=2))
found = unchanged("profile", lambda: ss.profile(model, ids, channels=2))
if "torch._dynamo" in sys.modules:
    print("torch's compiler was imported, which takes a second")
for name in ("summary", "ess", "to_xarray", "_repr_html_", "__repr__"):
    unchanged(name, getattr(found, name))
unchanged("plot", lambda: found.plot)
unchanged("save", lambda: found.save(f"{folder}/profile"))
unchanged("Profile.load", lambda: ss.Profile.load(f"{folder}/profile"))
unchanged("to_html", lambda: found.to_html(f"{folder}/page.html"))
unchanged("compare", lambda: ss.compare([found, found]))
unchanged("truncate", lambda: ss.truncate("recall-gla", documents=1, tokens=16))
unchanged("network_ess", lambda: ss.network_ess(model, ids[:, :8], positions=1))

from transformers import LlamaConfig, LlamaForCausalLM

size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
llama = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_key_value_heads=1, **size))
settings = {"documents": 12, "tokens": 40, "settings": ss.Settings(future=8), "name": "tiny"}
unchanged("cache", lambda: ss.cache(llama, torch.arange(12 * 40) % 60, **settings))
"""


def test_no_call_advances_a_random_state(tmp_path):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CALLS], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
