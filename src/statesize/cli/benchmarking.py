"""What the benchmarks share on the command line: threads, the JSON document, and where it goes."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run_benchmark(
    benchmark: Callable[[], dict[str, Any]],
    print_table: Callable[[dict[str, Any]], None],
    threads: int | None,
    json: bool,
    output: Path | None,
) -> None:
    """Runs a benchmark and prints or writes what it found; a file that cannot be written is a FileError.

    Args:
        benchmark: Gives the document.
        print_table: Prints it for people.
        threads: CPU threads meanwhile; as torch has them if None.
        json: Print the document instead.
        output: File for it.
    """
    import torch

    from statesize.cli.document import print_json
    from statesize.cli.progress import say
    from statesize.files import check_writable, replace_file

    if output is not None:
        check_writable(output.absolute().parent)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        document = benchmark()
    finally:
        torch.set_num_threads(before)
    if output is not None:
        replace_file(output, (json_module.dumps(document, ensure_ascii=False, indent=1) + "\n").encode())
        say(f"Benchmark: {output}")
    if json:
        print_json(document)
    else:
        print_table(document)


def conditions(document: dict[str, Any]) -> str:
    """Under what a benchmark was run.

    Args:
        document: What it found.

    Returns:
        Threads, clock and machine.
    """
    threads = "1 thread" if document["threads"] == 1 else f"{document['threads']} threads"
    return f"{threads} for both sides, {document['clock']} time; {document['machine']}"
