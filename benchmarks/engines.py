"""Each engine against the definition: `python benchmarks/engines.py [--length 2048] [--threads 1] [--output FILE]`.

The dense loop is timed on evenly spread positions and scaled to all of them; its rows say so. Every ratio is taken in
one process, with set-up, as the median of interleaved rounds. Entropies are asked to 2e-4, of streaming to 5e-4.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import statesize as ss

SAMPLED = 8
ROUNDS = 3


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gated(length: int, states: int) -> ss.Operator:
    """Gated linear attention with decays near 1."""
    g = torch.Generator().manual_seed(0)
    decay = torch.sigmoid(normal(g, length, states) + 2) ** (1 / 16)
    return ss.Recurrence(decay, normal(g, length, states) / math.sqrt(states), normal(g, length, states))


def delta(length: int, states: int) -> ss.Operator:
    """Gated delta rule with unit keys."""
    g = torch.Generator().manual_seed(0)
    key = torch.nn.functional.normalize(normal(g, length, states), dim=-1)
    query = normal(g, length, states) / math.sqrt(states)
    decay = torch.sigmoid(normal(g, length) + 3) ** 0.25
    return ss.Recurrence.delta_rule(key, normal(g, length).sigmoid(), query, decay)


def full(length: int, states: int) -> ss.Operator:
    """Full transitions, slightly contracting."""
    g = torch.Generator().manual_seed(0)
    A = 0.99 * torch.linalg.qr(normal(g, length, states, states)).Q
    return ss.Recurrence(A, normal(g, length, states), normal(g, length, states))


def attention(length: int, width: int) -> ss.Operator:
    """Softmax attention with random queries and keys: full rank."""
    g = torch.Generator().manual_seed(0)
    return ss.SoftmaxAttention(normal(g, length, width), normal(g, length, width), 1 / math.sqrt(width))


def smooth_attention(length: int, width: int) -> ss.Operator:
    """Softmax attention with queries and keys on a slow curve: singular values that fall fast."""
    g = torch.Generator().manual_seed(0)
    time_ = 3.1 * torch.arange(length, dtype=torch.float64)[:, None] / length * torch.arange(1, 7)
    curve, mixture = torch.cat([time_.sin(), time_.cos()], -1), normal(g, 12, width)
    return ss.SoftmaxAttention(curve @ mixture, curve @ mixture.roll(1, 0), 0.5 / math.sqrt(width))


def modal_convolution(length: int, modes: int) -> ss.Operator:
    """A long kernel made of damped oscillations, as state-space models have."""
    g = torch.Generator().manual_seed(0)
    lag, mode = torch.arange(length, dtype=torch.float64), torch.arange(1, modes + 1)[:, None]
    waves = torch.exp(-0.001 * mode * lag) * torch.cos(8 * math.pi * mode * lag / length)
    return ss.Convolution((normal(g, modes, 1) * waves).sum(0), length)


def selective(length: int, states: int) -> ss.Operator:
    """64 channels of a selective state-space model, A = −1 … −n."""
    g = torch.Generator().manual_seed(0)
    step = torch.nn.functional.softplus(normal(g, 64, length, 1) - 4)
    decay = torch.exp(-step * torch.arange(1, states + 1))
    return ss.Recurrence(decay, step * normal(g, 1, length, states), normal(g, 1, length, states))


CASES: dict[str, tuple[Callable[[int, int], ss.Operator], int, str, tuple[str, ...]]] = {
    "gated n=64": (gated, 64, "chunked", ("counts", "entropy")),
    "gated n=128": (gated, 128, "chunked", ("counts", "entropy")),
    "delta rule n=128": (delta, 128, "chunked", ("counts", "entropy")),
    "full transition n=64": (full, 64, "chunked", ("counts", "entropy")),
    "gated n=64, all σ": (gated, 64, "square_root", ("values",)),
    "gated n=128, all σ": (gated, 128, "square_root", ("values",)),
    "64 Mamba channels n=16, all σ": (selective, 16, "small_state", ("values",)),
    "softmax d=64": (attention, 64, "position_tree", ("counts", "entropy")),
    "softmax, decaying": (smooth_attention, 64, "streaming", ("counts", "entropy")),
    "convolution, 32 modes": (modal_convolution, 32, "streaming", ("counts", "entropy")),
}


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def dense_seconds(matrix: torch.Tensor, positions: list[int]) -> float:
    """The definition at some positions, scaled to all."""

    def loop() -> None:
        for i in positions:
            torch.linalg.svdvals(matrix[i:, :i])

    return timed(loop) / len(positions) * (matrix.shape[-1] - 1)


def compare(name: str, length: int) -> list[dict[str, object]]:
    """One row for each output of a case."""
    make, states, engine, outputs = CASES[name]
    operator = make(length, states)
    entries = operator.batch_shape.numel()
    first = operator[(0,) * len(operator.batch_shape)]
    matrix = first.dense()
    sampled = [int(i) for i in torch.linspace(1, length - 1, SAMPLED + 2)[1:-1]]
    exact = ss.measure(first, outputs=("counts", "entropy", "values"), positions=sampled, engine="dense")
    tau = 1e-3 * float(exact.values.max())
    exact_counts = (exact.values > tau).sum(-1)
    rows = []
    for output in outputs:

        def run(output: str = output) -> ss.Measurement:
            accuracy = 5e-4 if engine == "streaming" else 2e-4
            return ss.measure(operator, (tau,), (), outputs=(output,), engine=engine, entropy_accuracy=accuracy)

        found = run()
        places = (*(0,) * len(operator.batch_shape), [i - 1 for i in sampled])
        error, miscounts = 0.0, 0
        if output == "counts":
            miscounts = int((found.tolerance[(*places, 0)] != exact_counts).sum())
        elif output == "entropy":
            error = float(((found.entropy[places] - exact.entropy) / exact.entropy).abs().max())
        else:
            r = found.values.shape[-1]
            off = (found.values[places] - exact.values[..., :r]).abs().amax(-1)
            error = float((off / exact.values[..., 0]).max())
        ratios, seconds = [], []
        for _ in range(ROUNDS):
            fast = timed(run)
            ratios.append(entries * dense_seconds(matrix, sampled) / fast)
            seconds.append(fast)
        rows.append(
            {
                "case": name,
                "engine": engine,
                "output": output,
                "length": length,
                "ratio": statistics.median(ratios),
                "seconds": statistics.median(seconds),
                "microseconds_per_spectrum": 1e6 * statistics.median(seconds) / entries / (length - 1),
                "error": error,
                "miscounts": miscounts,
                "checked_positions": len(sampled),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    return rows


def exponent(make: Callable[[int, int], ss.Operator], engine: str, lengths: list[int]) -> float:
    """Slope of log seconds over log length, counts of one head."""
    points = []
    for length in lengths:
        operator = make(length, 64)
        run = lambda operator=operator: ss.measure(operator, (1e-3,), (), outputs=("counts",), engine=engine)  # noqa: E731
        run()
        points.append((math.log(length), math.log(min(timed(run) for _ in range(ROUNDS)))))
    mean = [statistics.fmean(column) for column in zip(*points, strict=True)]
    covariance = sum((x - mean[0]) * (y - mean[1]) for x, y in points)
    return covariance / sum((x - mean[0]) ** 2 for x, _ in points)


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/engines.json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    print(f"{'case':30} {'engine':14} {'output':8}", end=" ")
    print(f"{'ratio':>7} {'seconds':>8} {'µs each':>8} {'error':>8} miscounts")
    for name in CASES:
        for row in compare(name, given.length):
            rows.append(row)
            print(
                f"{row['case']:30} {row['engine']:14} {row['output']:8} {row['ratio']:7.0f} {row['seconds']:8.3f} "
                f"{row['microseconds_per_spectrum']:8.2f} {row['error']:8.1e} "
                f"{row['miscounts']:5d}/{row['checked_positions']}",
                flush=True,
            )
    exponents = {
        "chunked": exponent(gated, "chunked", [512, 1024, 2048, 4096, 8192, 16384]),
        "streaming": exponent(smooth_attention, "streaming", [512, 1024, 2048, 4096]),
        "position_tree": exponent(attention, "position_tree", [512, 1024, 2048]),
    }
    print("cost in L: " + ", ".join(f"{engine} {slope:.2f}" for engine, slope in exponents.items()))
    result = {
        "rows": rows,
        "exponents": exponents,
        "dense_loop": f"timed at {SAMPLED} positions and scaled to all",
        "threads": given.threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "versions": {"statesize": ss.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }
    part = given.output.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1))
    part.replace(given.output)


if __name__ == "__main__":
    main()
