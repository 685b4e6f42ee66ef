"""Networks as docs/appendix/networks.md has them: `python -m benchmarks.networks [--accuracy 0.25] [--output FILE]`.

The ESS of the four bundled models over one text, cut in its middle, beside what their layers need; with --gpt2, of a
model of GPT-2 small's shape with random weights over 256 random tokens instead; with --single, by products in single
precision. Rows of other models, accuracies or precisions that the file already has stay.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import statesize as ss
from benchmarks.cases import document, peak_resident_bytes
from statesize.io.files import replace_file
from statesize.networks.network import NetworkProgress
from statesize.texts.tokens import join_documents

BUNDLED = ("sa", "la", "gla", "gated-deltanet")
# Both sides of a cut in the middle are then larger than all states of a bundled model with its convolutions.
TOKENS = 344
# Rows of the file that differ in one of these stay.
_KEY = ("model", "asked", "precision")


@dataclass(frozen=True)
class Case:
    """A model, a text, and how close its interval is to be."""

    name: str
    model: nn.Module
    ids: Tensor
    accuracy: float


def bundled(accuracy: float) -> list[Case]:
    """The bundled models over their held-out text."""
    ids = join_documents(ss.lab.zoo.tokenizer(), ss.lab.zoo.documents())[None, :TOKENS]
    return [Case(name, ss.lab.zoo.load(name)[0], ids, accuracy) for name in BUNDLED]


def gpt2(accuracy: float) -> list[Case]:
    """GPT-2 small's shape, with larger queries and keys than it begins with, so that attention is no plain mean."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=1000)).eval()
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.weight[:, : 2 * model.config.n_embd] *= 6
    ids = torch.randint(1000, (1, 256), generator=torch.Generator().manual_seed(1))
    return [Case("GPT-2 small, random weights", model, ids, accuracy)]


def row(case: Case, precision: Literal["double", "single"]) -> dict[str, Any]:
    """One network and its layers at the middle of the text."""
    start, wall = time.process_time(), time.perf_counter()
    cut = case.ids.shape[1] // 2
    found = ss.network_ess(
        case.model, case.ids, [cut], accuracy=case.accuracy, method="lanczos", precision=precision, on_progress=told
    )
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    beside = ss.networks.redundancy(case.model, case.ids, found, case.name)
    low, high = found.interval[0].tolist()
    (value,) = beside.to_dict()["values"]
    return {
        "model": case.name,
        "tokens": case.ids.shape[1],
        "cut": cut,
        "dimension": beside.dimension[0],
        "state_bytes": sum(mixer.state_bytes for mixer in beside.mixers),
        "stored": round(beside.stored[0]),
        "needed": round(beside.needed[0], 1),
        "network": round(beside.whole[0], 1),
        "interval": [round(low, 1), round(high, 1)],
        "accuracy": round((high - low) / (high + low), 3),
        "converged": found.converged,
        "redundancy": value,
        "precision": precision,
        "products": found.products.item(),
        "seconds": round(seconds, 1),
        "wall_seconds": round(wall, 1),
    }


def told(progress: NetworkProgress) -> None:
    """One line a judgement."""
    if progress.products % 10 == 0:
        print(f"  {progress.products} products, ± {progress.accuracy:.0%}", file=sys.stderr)


def main() -> int:
    """Measure, print what was found, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpt2", action="store_true")
    parser.add_argument("--accuracy", type=float, default=0.25)
    parser.add_argument("--single", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    old = given.output is not None and given.output.exists()
    rows: list[dict[str, Any]] = json.loads(given.output.read_text(encoding="utf-8"))["rows"] if old else []
    for case in (gpt2 if given.gpt2 else bundled)(given.accuracy):
        found = row(case, "single" if given.single else "double") | {
            "asked": given.accuracy,
            "threads": given.threads,
            "peak_bytes": peak_resident_bytes(),
        }
        print(json.dumps(found), flush=True)
        rows = [other for other in rows if any(other[key] != found[key] for key in _KEY)] + [found]
        if given.output is not None:
            replace_file(given.output, (json.dumps(document(rows), indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
