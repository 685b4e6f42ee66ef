"""The report of a hybrid of 64 layers: `python -m benchmarks.report [--page FILE] [--output FILE] [--picture FILE]`.

A random model of 56 Mamba-2 and 8 attention layers with 16 heads each reads bundled documents that end with delimiters.
The page may take 2 MB and has to open within 2 s in Chromium without a network: what counts is the processor time of
the page's process until all charts are drawn, the least of several visits; the wall time depends on the machine's load.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import torch
from playwright.sync_api import Browser, sync_playwright
from transformers import BambaConfig, BambaForCausalLM

from benchmarks.cases import made
from statesize.io.machine import machine
from statesize.lab import zoo
from statesize.lab.tasks.text import encode
from statesize.profiling import Profile, profile
from statesize.report import write_report

MOST_BYTES, MOST_SECONDS = 2_000_000, 2.0
LAYERS, HEADS, LENGTH, VISITS = 64, 16, 256, 3


def hybrid() -> Profile:
    """The profile of the random hybrid over one sequence of documents."""
    tokenizer = zoo.tokenizer()
    torch.manual_seed(0)
    config = BambaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        num_hidden_layers=LAYERS,
        intermediate_size=160,
        num_attention_heads=HEADS,
        num_key_value_heads=4,
        attn_layer_indices=list(range(7, LAYERS, 8)),
        mamba_n_heads=HEADS,
        mamba_d_head=16,
        mamba_d_state=16,
        mamba_n_groups=1,
        mamba_chunk_size=64,
        initializer_range=0.15,
        pad_token_id=None,
    )
    documents = (encode([document], tokenizer) for document in zoo.documents())
    ids = torch.cat([ids for ids in documents if 40 <= len(ids) <= 120])[:LENGTH]
    model = BambaForCausalLM(config).eval()
    return profile(model, ids[None], tokenizer=tokenizer, name="hybrid-64")


def visit(browser: Browser, page: Path) -> dict[str, float]:
    """Seconds until all charts of a page are drawn."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    tab = context.new_page()
    session = context.new_cdp_session(tab)
    session.send("Performance.enable")
    started = time.perf_counter()
    tab.goto(page.as_uri(), timeout=120_000)
    tab.wait_for_selector("html[data-ready]", timeout=120_000)
    wall = time.perf_counter() - started
    found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    context.close()
    return {"processor_seconds": found["ProcessTime"], "wall_seconds": wall}


def picture(browser: Browser, page: Path, output: Path) -> None:
    """A picture of the page's map of layers and heads."""
    tab = browser.new_page(viewport={"width": 1100, "height": 900})
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-ready]")
    tab.locator("section[aria-labelledby=map-title]").screenshot(path=output)
    tab.close()


def main() -> None:
    """Make, open and judge the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    found = hybrid()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = options.page or Path(folder) / "report.html"
        started = time.process_time()
        size = write_report([found], page.absolute()).stat().st_size
        written = time.process_time() - started
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        visits = [visit(browser, page.absolute()) for _ in range(VISITS)]
        if options.picture is not None:
            picture(browser, page.absolute(), options.picture)
        browser.close()
    seconds = min(one["processor_seconds"] for one in visits)
    print(f"{LAYERS} layers, {LENGTH} tokens: {size:,} bytes, open after {seconds:.2f} s of processor time")
    print(f"within {MOST_BYTES:,} bytes and {MOST_SECONDS} s: {size <= MOST_BYTES and seconds <= MOST_SECONDS}")
    if options.output is not None:
        document = {
            "layers": LAYERS,
            "heads": HEADS,
            "tokens": LENGTH,
            "bytes": size,
            "writing_processor_seconds": written,
            "visits": visits,
            "machine": machine(),
            "made": made(),
        }
        options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
