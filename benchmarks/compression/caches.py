"""Smaller caches of softmax attention: `python -m benchmarks.compression.caches FILE`.

What the bundled model `sa` loses on its held-out documents where each head keeps its first two and its last tokens, as
many as a budget allows, and where keys and values are rounded. Budgets of one total are equal, or in proportion to a
number of the head on other text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.cases import document
from statesize.io.files import replace_file
from statesize.lab import zoo
from statesize.lab.tasks.corpus import python_prose
from statesize.measurement.measurement import measure
from statesize.reduction.compress import extra_bits
from statesize.reduction.windows import Scores, TokenWindows, score, windows

LENGTH, FIRST, LEAST = 256, 2, 4
TOKENS = (64, 32, 16)
BITS = (8, 4, 3)
# From the lowest layer to the highest.
PYRAMID = (1.6, 1.2, 0.8, 0.4)
_CALIBRATION = 16 * LENGTH

Read = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What a layer's heads read, (S, H, L, d_v), from queries, keys and values."""


def main(path: Path) -> None:
    """Measure all budgets and roundings, print them, and write the document."""
    torch.set_num_threads(1)
    model, tokenizer = zoo.load("sa")
    held_out = windows(zoo.documents(), tokenizer, LENGTH)
    weights = head_numbers(model, windows(python_prose().train, tokenizer, LENGTH, _CALIBRATION))
    layers, heads = model.config.layers, model.config.heads

    def scored(reads: Sequence[Read]) -> Scores:
        for block, read in zip(model.blocks, reads, strict=True):
            block.mixer.mixed_values = lambda hidden, mixer=block.mixer, read=read: read(
                *mixer._query_key_value(hidden)
            )
        found = score(model, held_out.inputs, held_out.targets)
        for block in model.blocks:
            del block.mixer.mixed_values
        return found

    before = score(model, held_out.inputs, held_out.targets)
    rows: list[dict[str, Any]] = []
    for tokens in TOKENS:
        equal: Scores | None = None
        for way, numbers in weights.items():
            budgets = shares(numbers, tokens * layers * heads)
            found = scored([recent(part) for part in budgets.view(layers, heads)])
            equal = equal or found
            rows.append(
                {"way": way, "tokens": tokens, "extra": ends(found, before, held_out)}
                | {"against_equal": ends(found, equal, held_out), "budgets": budgets.tolist()}
            )
            print(rows[-1], flush=True)
    for bits in BITS:
        found = scored([rounded(bits)] * layers)
        rows.append({"way": f"int{bits}", "tokens": LENGTH, "extra": ends(found, before, held_out)})
        print(rows[-1], flush=True)
    replace_file(path, (json.dumps(document(rows, documents=len(held_out.sizes))) + "\n").encode())


@torch.no_grad()
def head_numbers(model: Any, calibration: TokenWindows) -> dict[str, Tensor]:
    """A number for each head, (layers · H,), in whose proportion its budget is."""
    ess: list[Tensor] = []
    attended: list[Tensor] = []
    hidden = model._embed(calibration.inputs, slice(0, LENGTH))
    for block in model.blocks:
        operator = block.mixer.operator(block.mixer_norm(hidden))
        found: Any = measure(operator, positions=[LENGTH // 4, LENGTH // 2, 3 * LENGTH // 4])
        ess.append(found.entropy.mean((0, 2)))
        attention = operator.dense().double()
        entropy = -(attention * attention.clamp(min=1e-300).log()).sum(-1)
        attended.append(entropy.exp().mean((0, 2)))
        hidden = block(hidden)
    numbers, equal = torch.cat(ess).double(), torch.ones(len(ess) * model.config.heads, dtype=torch.float64)
    one = torch.full_like(equal, float(numbers.mean()))
    one[numbers.argmax()] = numbers.max()
    pyramid = torch.tensor(PYRAMID, dtype=torch.float64).repeat_interleave(model.config.heads)
    return {
        "equal": equal,
        "entropy-ESS": numbers,
        "entropy-ESS of one head, the others equal": one,
        "tokens attended to": torch.cat(attended),
        "pyramid": pyramid,
        "1 / entropy-ESS": 1 / numbers,
    }


def shares(numbers: Tensor, total: int) -> Tensor:
    """Whole budgets in proportion to numbers, (H,), none below the least or above the whole text."""
    # Where all have the whole text; halved until it is exact.
    low, high = 0.0, LENGTH * float(numbers.sum() / numbers.min())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float(_clamped(numbers, middle).sum()) < total else (low, middle)
    return _clamped(numbers, high).round().long()


def _clamped(numbers: Tensor, factor: float) -> Tensor:
    return (factor * numbers / numbers.sum()).clamp(LEAST, LENGTH)


def recent(budgets: Tensor) -> Read:
    """Each head sees the first tokens and the last ones, as many as its budget (H,)."""
    position = torch.arange(LENGTH)
    lag = position[:, None] - position
    seen = (lag >= 0) & ((lag < (budgets - FIRST)[:, None, None]) | (position < FIRST))
    return lambda query, key, value: functional.scaled_dot_product_attention(query, key, value, seen)


def rounded(bits: int) -> Read:
    """Keys and values of so many bits, with a scale for each token and head."""
    most = 2 ** (bits - 1) - 1

    def round_off(vectors: Tensor) -> Tensor:
        scale = vectors.abs().amax(-1, keepdim=True).clamp(min=1e-9) / most
        return (vectors / scale).round() * scale

    return lambda query, key, value: functional.scaled_dot_product_attention(
        query, round_off(key), round_off(value), is_causal=True
    )


def ends(found: Scores, other: Scores, held_out: TokenWindows) -> list[float]:
    """Extra bits per byte against another score, with its interval over documents."""
    extra = extra_bits(found, other, held_out)
    return [extra.value, extra.low, extra.high]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
