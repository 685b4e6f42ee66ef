"""All that needs a GPU, in one document: `python -m benchmarks.gpu [--output FILE]`.

Each engine against itself on the CPU: the same counts, how far entropies differ, seconds of both and what the GPU held.
Then a profile of a Llama shape of 1.2 billion random weights in bfloat16, one text of 512 tokens, all heads, and a
kernel of flash-linear-attention against the step form, where fla is installed. It takes less than 8 minutes. Without a
GPU it says so and ends; `--device cpu --quick` tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cases import CASES, Case, document, random_tokens
from statesize.io.files import replace_file
from statesize.measurement.measurement import Measurement, measure
from statesize.operators import Operator
from statesize.profiling.run import profile

LENGTH, TOKENS = 2048, 512
RELATIVE = (1e-2,)


# Layers, width, that of the MLP, heads, and caches that they share: as Llama 3.2 1B has them, and a small shape.
MODEL, QUICK = (16, 2048, 8192, 32, 8), (2, 64, 128, 4, 2)


def llama(layers: int, width: int, inner: int, heads: int, caches: int) -> nn.Module:
    """A Llama shape in bfloat16, in eval mode, with weights at its published initialisation, from a fixed seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng([]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]
        sizes = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner}
        sizes |= {"num_attention_heads": heads, "num_key_value_heads": caches, "vocab_size": 1024}
        config = LlamaConfig(**sizes, pad_token_id=None, tie_word_embeddings=True)
        return LlamaForCausalLM(config).to(torch.bfloat16).eval()


def timed(device: torch.device, call: Callable[[], Any], warm: Callable[[], Any]) -> tuple[Any, float, int]:
    """What a call returns, its wall seconds after a warm-up, and bytes that the GPU held at most beside."""
    cuda = device.type == "cuda"
    warm()
    held = torch.cuda.memory_allocated(device) if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = call()
    if cuda:
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - start, torch.cuda.max_memory_allocated(device) - held if cuda else 0


def answers(case: Case, operator: Operator) -> Measurement:
    """What a case's engine says at all positions."""
    return measure(operator, (), RELATIVE, outputs=case.outputs, engine=case.engine)


def engine_row(case: Case, length: int, device: torch.device) -> dict[str, Any]:
    """One engine on the GPU and on the CPU."""
    operator = case.make(length)
    moved = operator.to(device=device)
    one, on_cpu, _ = timed(torch.device("cpu"), lambda: answers(case, operator), lambda: answers(case, operator))
    other, on_gpu, held = timed(device, lambda: answers(case, moved), lambda: answers(case, moved))
    row: dict[str, Any] = {"case": case.name, "length": operator.length, "engine": one.engine}
    row |= {"cpu_seconds": on_cpu, "gpu_seconds": on_gpu, "gpu_bytes": held}
    if one.entropy is not None and other.entropy is not None:
        row["entropy_difference"] = float(((one.entropy - other.entropy).abs() / one.entropy.clamp(min=1)).max())
    if one.relative_count is not None and other.relative_count is not None:
        row["counts_differ"] = int((one.relative_count != other.relative_count).sum())
    return row


def model_row(shape: tuple[int, int, int, int, int], tokens: int, device: torch.device) -> dict[str, Any]:
    """A profile of a whole model."""
    model = llama(*shape).to(device)
    ids = random_tokens(tokens)[:1]
    result, spent, held = timed(device, lambda: profile(model, ids), lambda: profile(model, ids[:, :32]))
    rows = result.summary_rows()
    return {
        "model": "a Llama shape",
        "weights": sum(weight.numel() for weight in model.parameters()),
        "tokens": tokens,
        "mixers": len(rows),
        "seconds": spent,
        "gpu_bytes": held,
        "faithfulness": max(row["faithfulness"] for row in rows),
    }


def kernel_row(device: torch.device) -> dict[str, Any]:
    """The chunked kernel of gated linear attention of fla, captured and measured."""
    layer: Any = import_module("fla.layers").GatedLinearAttention(hidden_size=256, num_heads=4)
    model = torch.nn.Sequential(torch.nn.Embedding(1024, 256), layer).to(device).eval()
    ids = random_tokens(TOKENS)[:1]
    # Up to 64 tokens the layer takes another kernel, and Triton compiles each at its first call.
    result, spent, held = timed(device, lambda: profile(model, ids), lambda: profile(model, ids))
    (row,) = result.summary_rows()
    return {"kind": row["kind"], "seconds": spent, "gpu_bytes": held, "faithfulness": row["faithfulness"]}


def main(arguments: list[str]) -> int:
    """Measure and write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small operators and a small model")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("device must be one that torch finds, got cuda. Run it where torch.cuda.is_available().\n")
        return 2
    length = 128 if options.quick else LENGTH
    rows = [engine_row(case, length, device) for case in CASES]
    shape, tokens = (QUICK, length) if options.quick else (MODEL, TOKENS)
    more: dict[str, Any] = {"model": model_row(shape, tokens, device)}
    if find_spec("fla") is not None and device.type == "cuda":
        more["kernel"] = kernel_row(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    text = json.dumps(document(rows, "transformers", "flash-linear-attention", gpu=name, **more), indent=1) + "\n"
    sys.stdout.write(text)
    if options.output is not None:
        replace_file(options.output, text.encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
