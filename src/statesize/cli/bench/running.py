"""What the benchmarks share on the command line: threads, the JSON document, and where it goes."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statesize.cli.output.printing import Printing


def run_benchmark(
    name: str,
    parts: int,
    benchmark: Callable[[Callable[[str], None]], dict[str, Any]],
    print_table: Callable[[dict[str, Any]], None],
    threads: int | None,
    output: Path | None,
    printing: Printing,
) -> None:
    """Run a benchmark, which is given what tells that a part is done, and print or write its document."""
    from statesize.cli.output.document import print_json
    from statesize.files import check_writable, replace_file
    from statesize.parallel.threads import torch_threads

    if output is not None:
        check_writable(output.absolute().parent)
    done = count(1)
    with torch_threads(threads), printing.bars() as bars:
        bar = bars.begin(name, parts)
        document = benchmark(lambda detail: bar.update(next(done), parts, detail))
    if output is not None:
        replace_file(output, (json_module.dumps(document, ensure_ascii=False, indent=1) + "\n").encode())
        printing.say(f"Benchmark: {output}")
    if printing.json:
        print_json(document)
    else:
        print_table(document)


def conditions(document: dict[str, Any]) -> str:
    """Under what a benchmark was run: threads, clock and machine."""
    threads = "1 thread" if document["threads"] == 1 else f"{document['threads']} threads"
    return f"{threads} for both sides, {document['clock']} time; {document['machine']}"
