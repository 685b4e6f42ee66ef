"""What statesize makes of fla's layers: `python fla_sweep.py kernels|gpu LENGTH [NAME …]`, as lines of JSON.

`kernels` runs fla's Triton kernels in the interpreter (TRITON_INTERPRET=1, and `python -O`, since the chunked delta
rules refuse float32 by an assertion, and the interpreter knows no bfloat16), `gpu` its compiled kernels, in bfloat16 as
they are used.
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from oracles.fla_layers import HALF, LAYERS, build, tokens
from oracles.triton_interpreter import install_flash_attention, interpret_if_asked

import statesize as ss
from statesize.adapters.check import check_operator, unfaithfulness
from statesize.adapters.observation import Observation
from statesize.codes import Note, joined

capture_module = sys.modules["statesize.adapters.capture"]


@dataclass
class Found:
    """What was found of one layer."""

    name: str
    by: str  # "kernels" or "gpu"
    length: int
    kind: str = ""
    units: int = 0
    state_size: int | None = None  # None where it grows with the text
    faithfulness: float | None = None  # largest difference of T u from what the kernel returned
    stepped: float | None = None  # the same from what its step form returns, where it has one
    entropy: float | None = None  # mean entropy-ESS of the first units over all positions
    dtype: str = "float32"
    seconds: float = 0.0
    reason: str = ""  # why it is not measured
    note: str = ""  # what is told beside


def compared(found: Found, observation: Observation, dtype: torch.dtype | None) -> tuple[float, tuple[Note, ...]]:
    """The check of capture, and what the step form of the kernel says beside."""
    exact = observation.exact()
    if exact is not None:
        found.stepped = unfaithfulness(observation, observation.values, exact)
    return check_operator(observation, dtype)


def measured(name: str, by: str, length: int) -> Found:
    """One layer captured and measured."""
    found, start = Found(name, by, length), time.perf_counter()
    try:
        device = "cuda" if by == "gpu" else "cpu"
        dtype = torch.bfloat16 if by == "gpu" else torch.float16 if name in HALF else torch.float32
        model, ids = build(name).to(device, dtype), tokens(length).to(device)
        found.dtype = str(dtype).removeprefix("torch.")
        # The interpreter is slow: what it returns is compared with T u, and not run again for references.
        capture_module.check_operator = partial(compared, found)
        interpret_if_asked()
        capturing = ss.capture(model, ids, checks="none" if by == "kernels" else "all")
        mixer = capturing.mixers[0]
        captured = next(capturing)
        found.kind, found.units, found.state_size = captured.kind, captured.units, mixer.state_size
        found.faithfulness, found.note = captured.faithfulness, joined(captured.notes)
        found.entropy = float(ss.measure(captured.units_operator(slice(0, 2)), positions=8).entropy.mean())
    except Exception as error:
        lines, frames = str(error).strip().splitlines(), traceback.extract_tb(error.__traceback__)
        places = [f"{Path(frame.filename).name}:{frame.name}" for frame in frames if "/fla/" in frame.filename]
        told = re.search(r"by (\S+) of the largest value", str(error))
        found.faithfulness = float(told[1]) if told else None
        found.reason = f"{type(error).__name__}: {(lines or [''])[0]} ({(places or ['statesize'])[-1]})"
    found.seconds = round(time.perf_counter() - start, 1)
    return found


def main(by: str, length: str, *names: str) -> None:
    """Print one line for each layer."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    install_flash_attention()
    import fla.layers.simple_gla  # noqa: F401

    for name in names or LAYERS:
        print(json.dumps(asdict(measured(name, by, int(length)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
