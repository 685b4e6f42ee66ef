"""How long layers of flash-linear-attention take on a CPU: `python -m benchmarks.fla_time`.

Capture: models of fla with 4 layers, 256 wide, run over its torch references, one sequence of 256 tokens and two at
once; `capture`, all checks included, and a forward pass alternate, and the least time of each counts. Times are those
of the processor, on one thread. It goes into results/families/fla.json.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from oracles.fla_torch import use_references

import statesize as ss
from statesize.io.files import replace_file

TABLE = Path(__file__).parents[1] / "results" / "families" / "fla.json"
MODELS: dict[str, dict[str, Any]] = {
    "GLA": {"num_heads": 4},
    "RetNet": {"num_heads": 4},
    "GSA": {"num_heads": 4, "num_slots": 64},
    "GatedDeltaNet": {"num_heads": 4, "head_dim": 64, "expand_v": 1},
    "KDA": {"num_heads": 4, "head_dim": 64, "expand_v": 1},
    "Mamba2": {"num_heads": 8, "head_dim": 64},
}
SHAPE = {"hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 32_000, "fuse_cross_entropy": False}
LENGTH, SEQUENCES, REPEATS = 256, (1, 2), 2


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes the processor."""
    start = time.process_time()
    call()
    return time.process_time() - start


def timed(name: str, settings: dict[str, Any], sequences: int) -> dict[str, Any]:
    """One model's forward and capture, of so many sequences at once."""
    models: Any = import_module("fla.models")
    config = getattr(models, f"{name}Config")
    torch.manual_seed(0)
    model = getattr(models, f"{name}ForCausalLM")(config(**SHAPE, **settings)).eval()
    tokens = torch.randint(0, 32_000, (sequences, LENGTH), generator=torch.Generator().manual_seed(1))

    def forward() -> None:
        with torch.no_grad():
            model(tokens, use_cache=False)

    def capture() -> None:
        for _ in ss.capture(model, tokens):
            pass

    forward()
    capture()
    pairs = [(seconds(forward), seconds(capture)) for _ in range(REPEATS)]
    passed, captured = (min(times) for times in zip(*pairs, strict=True))
    ratio = captured / passed
    return {"model": name, "sequences": sequences, "forward": passed, "capture": captured, "ratio": ratio}


def main() -> None:
    """Time all models and write what was found."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    use_references()
    document = json.loads(TABLE.read_text("utf-8"))
    document["time"] = {
        "command": "python -m benchmarks.fla_time",
        "length": LENGTH,
        "capture": [timed(name, given, count) for name, given in MODELS.items() for count in SEQUENCES],
    }
    print(json.dumps(document["time"], indent=1))
    replace_file(TABLE, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
