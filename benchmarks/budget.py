"""Whether `--memory` holds: `python -m benchmarks.budget [--memory 300MB] [--output FILE]`.

Three models of one layer and eight heads are profiled at three lengths, each run in a process of its own. Its peak of
resident memory is counted beside the model, which is what the same model without a measurement takes. Where the memory
is refused, the run is made once more with the one that the message says would do. Exits with 1 where a run took more
than 1.1 times what it was given, or planning more than running.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cases import child_process, document, forget_peak, peak_resident_bytes, resident_bytes
from statesize.errors import InputError
from statesize.io.files import replace_file
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import memory_bytes
from statesize.profiling import plan, profile

MODELS = ("attention of transformers (Llama)", "softmax attention (sa)", "gated linear attention (gla)")
LENGTHS = (512, 1024, 2048)
POSITIONS = 3
ALLOWED = 1.1
MEGABYTE = 10**6


def build(name: str, length: int) -> nn.Module:
    """A model of random weights; one layer, eight heads of eight channels."""
    if "Llama" in name:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=64,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=8,
            max_position_embeddings=length,
        )
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()
    mixer = name.rpartition("(")[2].rstrip(")")
    config = ModelConfig(mixer=mixer, vocabulary_size=64, width=64, heads=8, layers=1, key_size=8)
    return LanguageModel(config, torch.Generator().manual_seed(0)).eval()


def peak(name: str, length: int, memory: str, planned: bool) -> tuple[int, str]:
    """Peak bytes beside the model, and why the memory was refused, if it was; in a process of its own."""
    torch.set_num_threads(1)
    model, ids = build(name, length), torch.arange(length)[None] % 64
    # What is compiled or loaded once is no part of a measurement.
    profile(build(name, 64), ids[:, :64], positions=POSITIONS)
    before = resident_bytes()
    with torch.no_grad():
        forget_peak()
        model(ids)
    before = max(before, peak_resident_bytes())
    forget_peak()
    refused = ""
    try:
        (plan if planned else profile)(model, ids, positions=POSITIONS, memory=memory)
    except InputError as error:
        refused = str(error)
    return max(0, peak_resident_bytes() - before), refused


def measured(name: str, length: int, memory: str) -> dict[str, Any]:
    """What running and planning took with a memory or, where that is refused, with the one that would do."""
    refused: list[dict[str, Any]] = []
    while True:
        with child_process() as pool:
            taken, reason = pool.submit(peak, name, length, memory, False).result()
        enough = re.search(r"memory must be at least (\d+MB)", reason)
        if enough is None:
            break
        refused.append({"memory": memory_bytes(memory), "peak": taken, "message": reason})
        memory = enough[1]
    with child_process() as pool:
        planned, _ = pool.submit(peak, name, length, memory, True).result()
    row = {"model": name, "length": length, "refused": refused, "memory": memory_bytes(memory)}
    return row | {"peak": taken, "plan_peak": planned}


def bad(row: dict[str, Any]) -> bool:
    """Whether more was taken than was given, or more by planning than by running."""
    runs = [(run["peak"], run["memory"]) for run in (row, *row["refused"])]
    runs.append((row["plan_peak"], max(row["peak"], row["memory"])))
    return any(taken > ALLOWED * given for taken, given in runs)


def main() -> int:
    """Measure, print a line a run and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", default="300MB")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in MODELS:
        for length in LENGTHS:
            rows.append(measured(name, length, given.memory))
            shown = (f"{rows[-1][key] / MEGABYTE:,.0f} MB" for key in ("memory", "peak", "plan_peak"))
            print(f"{name:34} {length:6,} {' '.join(f'{cell:>10}' for cell in shown)}", flush=True)
            if given.output is not None:
                content = json.dumps(document(rows, memory=given.memory), indent=1) + "\n"
                replace_file(given.output, content.encode())
    return int(any(map(bad, rows)))


if __name__ == "__main__":
    sys.exit(main())
