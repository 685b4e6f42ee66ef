"""What one call runs through: `python -m tools.call_path [--page] [--list]`.

A tiny GPT-2 is profiled, and with --page its report written as well. Prints how many files and functions of statesize
ran; with --list, the functions of each file. Bodies of modules and classes, comprehensions
and lambdas are not counted.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import statesize as ss

ROOT = Path(ss.__file__).parent


def functions_run(call: Callable[[], object]) -> dict[str, list[str]]:
    """Qualified names of the functions of statesize that a call runs, by file."""
    seen: set[CodeType] = set()

    def notice(frame: FrameType, event: str, argument: object) -> None:
        del argument
        if event == "call":
            seen.add(frame.f_code)

    sys.setprofile(notice)
    try:
        call()
    finally:
        sys.setprofile(None)
    found: dict[str, list[str]] = defaultdict(list)
    for code in seen:
        path = Path(code.co_filename)
        # Bodies of modules and classes, which run once, are not optimised.
        body = not code.co_flags & inspect.CO_OPTIMIZED
        if path.is_relative_to(ROOT) and not body and not code.co_name.startswith("<"):
            found[str(path.relative_to(ROOT))].append(code.co_qualname)
    return {file: sorted(names) for file, names in sorted(found.items())}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_positions=48, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    model, ids = GPT2LMHeadModel(config).eval(), torch.arange(40)

    def call() -> None:
        profile = ss.profile(model, ids, name="gpt2")
        if arguments.page:
            with tempfile.TemporaryDirectory() as folder:
                profile.to_html(Path(folder) / "page.html")

    # What is made once in a process is not of the call.
    call()
    found = functions_run(call)
    if arguments.list:
        for file, names in found.items():
            print(f"{file}: {', '.join(names)}")
    print(f"{len(found)} files, {sum(map(len, found.values()))} functions")


if __name__ == "__main__":
    main()
