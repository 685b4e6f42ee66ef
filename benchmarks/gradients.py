"""Gradients of entropy-ESS: `python benchmarks/gradients.py [--length 2048] [--positions 31] [--output FILE]`.

`ss.metrics.differentiable_entropy`, forward and backward to the tensors of the operator, against autograd through
`torch.linalg.svdvals(T[i:, :i])` at the same positions. T is given to the latter for nothing, as a leaf: neither its
forming nor the backward pass to what it is made of is counted. CPU time of one thread, the median of interleaved
rounds. Errors of values and gradients are those at a quarter of the length, where autograd goes all the way.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import statesize as ss

ROUNDS = 3


def gated(gate: torch.Tensor, key: torch.Tensor, query: torch.Tensor) -> ss.Operator:
    """Gated linear attention with decays near 1."""
    return ss.Recurrence((gate + 2).sigmoid() ** (1 / 16), key / math.sqrt(key.shape[-1]), query)


def delta(gate: torch.Tensor, key: torch.Tensor, query: torch.Tensor) -> ss.Operator:
    """Gated delta rule with unit keys; one decay a position, or one a channel as in Kimi delta attention."""
    unit = torch.nn.functional.normalize(key, dim=-1)
    decay = (gate + 3).sigmoid() ** 0.25
    return ss.Recurrence.delta_rule(unit, query[..., 0].sigmoid(), query / math.sqrt(key.shape[-1]), decay)


def full(transition: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> ss.Operator:
    """Full transitions near a contraction by 0.99."""
    eye = torch.eye(B.shape[-1], dtype=B.dtype)
    return ss.Recurrence(0.99 * eye + 0.02 / math.sqrt(B.shape[-1]) * transition, B, C)


def attention(_: torch.Tensor, key: torch.Tensor, query: torch.Tensor) -> ss.Operator:
    """Softmax attention with random queries and keys: full rank."""
    return ss.SoftmaxAttention(query, key, 1 / math.sqrt(key.shape[-1]))


# What makes the operator, its state size n, and the shape of its gates after (L,).
CASES: dict[str, tuple[Callable[..., ss.Operator], int, tuple[int, ...]]] = {
    "gated n=16": (gated, 16, (16,)),
    "gated n=64": (gated, 64, (64,)),
    "gated n=128": (gated, 128, (128,)),
    "delta rule n=64": (delta, 64, ()),
    "delta rule n=64, vector decay": (delta, 64, (64,)),
    "full transition n=64": (full, 64, (64, 64)),
    "softmax d=64": (attention, 64, ()),
}


def tensors(name: str, length: int) -> list[torch.Tensor]:
    """Gates, keys and queries of a case, standard normal in float64, that take gradients."""
    _, n, gates = CASES[name]
    g = torch.Generator().manual_seed(0)
    shapes = ((length, *gates), (length, n), (length, n))
    return [torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_() for shape in shapes]


def timed(function: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.thread_time()
    function()
    return time.thread_time() - start


def through_singular_values(T: torch.Tensor, positions: list[int]) -> torch.Tensor:
    """The definition, differentiable by autograd."""
    return torch.stack([ss.metrics.entropy_ess(torch.linalg.svdvals(T[i:, :i])) for i in positions])


def spread(length: int, count: int) -> list[int]:
    """Positions evenly between the ends."""
    return [round(length * (k + 1) / (count + 1)) for k in range(count)]


def gradients(ess: torch.Tensor, parts: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Gradient of the mean over positions."""
    return torch.autograd.grad(ess.mean(), parts, retain_graph=True, allow_unused=True)


def errors(name: str, length: int, count: int) -> tuple[float, float]:
    """Largest relative error of a value, and of a tensor's gradient in the Frobenius norm."""
    parts = tensors(name, length)
    operator, positions = CASES[name][0](*parts), spread(length, count)
    found, exact = (
        ss.metrics.differentiable_entropy(operator, positions),
        through_singular_values(operator.dense(), positions),
    )
    pairs = zip(gradients(found, parts), gradients(exact, parts), strict=True)
    worst = max(float((mine - plain).norm() / plain.norm()) for mine, plain in pairs if mine is not None)
    return float(((found - exact) / exact).abs().max().detach()), worst


def compare(name: str, length: int, count: int) -> dict[str, object]:
    """One row of the table."""
    make, parts, positions = CASES[name][0], tensors(name, length), spread(length, count)
    with torch.no_grad():
        T = make(*parts).dense()
    T.requires_grad_()

    def ours() -> object:
        return gradients(ss.metrics.differentiable_entropy(make(*parts), positions), parts)

    def dense() -> object:
        return gradients(through_singular_values(T, positions), [T])

    ours()
    seconds = [(timed(ours), timed(dense)) for _ in range(ROUNDS)]
    value_error, gradient_error = errors(name, length // 4, count)
    return {
        "case": name,
        "length": length,
        "positions": count,
        "ratio": statistics.median(plain / fast for fast, plain in seconds),
        "seconds": statistics.median(fast for fast, _ in seconds),
        "dense_seconds": statistics.median(plain for _, plain in seconds),
        "value_error": value_error,
        "gradient_error": gradient_error,
    }


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--positions", type=int, default=31)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/gradients.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print(f"{'case':30} {'ratio':>7} {'seconds':>8} {'dense':>8} {'value':>8} gradient error")
    for name in CASES:
        row = compare(name, given.length, given.positions)
        rows.append(row)
        print(
            f"{row['case']:30} {row['ratio']:7.1f} {row['seconds']:8.3f} {row['dense_seconds']:8.3f} "
            f"{row['value_error']:8.1e} {row['gradient_error']:8.1e}",
            flush=True,
        )
    result = {
        "rows": rows,
        "threads": 1,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "versions": {"statesize": ss.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }
    part = given.output.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1))
    part.replace(given.output)


if __name__ == "__main__":
    main()
