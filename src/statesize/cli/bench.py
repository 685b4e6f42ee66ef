"""`statesize bench`: the engines, and layers of published models, against the definition."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from statesize.cli.shared.options import Count, Flag
from statesize.cli.shared.printing import TEXT, Printing


def run_benchmark(
    name: str,
    parts: int,
    benchmark: Callable[[Callable[[str], None]], dict[str, Any]],
    print_table: Callable[[dict[str, Any]], None],
    threads: int | None,
    output: Path | None,
    printing: Printing,
) -> None:
    """Run a benchmark, which reports each finished part, and print or write its document."""
    from statesize.cli.shared.printing import print_json
    from statesize.io.files import check_writable, replace_file
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


_HEADINGS = ("case", "engine", "output", "L", "ratio", "seconds", "µs each", "error", "wrong", "memory")


def engines(
    *,
    length: Annotated[int | None, Parameter(validator=validators.Number(gte=128))] = None,
    threads: Count = 1,
    quick: Flag = False,
    output: Path | None = None,
    printing: Printing = TEXT,
) -> None:
    """Time every engine against the definition, torch.linalg.svdvals of each H_i in a loop, and print one table.

    A ratio is the time of the loop divided by the time of the engine: medians of three rounds, in this process, with
    set-up. The loop is timed at 8 evenly spread positions and scaled to all; errors are those at these positions.
    Memory is that of the operator and the measurement, in a process of its own.

    Args:
        length: Sequence length; one case is 8 times as long. Default: 2048, or 256 with --quick.
        threads: CPU threads for both sides. With one thread, processor time is measured, so a busy machine does not
            disturb it.
        quick: Take less than a minute, to see that it works: short sequences, few channels, one round.
        output: File for the JSON document.
        printing: What is printed.
    """
    from statesize.benchmarks.cases import cases
    from statesize.benchmarks.engines import benchmark
    from statesize.spectra.choice import ENGINES

    total = sum(len(case.outputs) for case in cases(quick)) + len(ENGINES)

    def run(report: Callable[[str], None]) -> dict[str, Any]:
        return benchmark(
            length,
            quick,
            on_row=lambda row: report(f"{row.case}: {row.output} {row.seconds:.3g} s"),
            on_growth=lambda engine, slope: report(f"{engine}: L to the power of {slope:.2f}"),
        )

    run_benchmark("bench engines", total, run, _print, threads, output, printing)


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def _print(document: dict[str, Any]) -> None:
    from statesize.cli.shared.table import print_table

    exponents = ", ".join(f"{engine} {slope:.2f}" for engine, slope in document["exponents"].items())
    positions = max(row["dense_positions"] for row in document["rows"])
    notes = (
        f"Cost grows with L to the power of: {exponents}.",
        f"The dense loop was timed at {positions} positions and scaled to all; {conditions(document)}.",
    )
    print_table(_HEADINGS, [_cells(row) for row in document["rows"]], left=3, notes=notes)


def _cells(row: dict[str, Any]) -> list[str]:
    error = "-" if row["output"] == "counts" else f"{row['error']:.1e}"
    return [
        row["case"],
        row["engine"],
        row["output"],
        f"{row['length']}",
        _ratio(row["ratio"]),
        f"{row['seconds']:.3f}",
        f"{row['microseconds_per_spectrum']:.2f}",
        error,
        f"{row['miscounts']}/{row['checked']}",
        f"{row['peak_bytes'] / 2**20:,.0f} MiB",
    ]


Case = Literal["falcon_mamba", "llama_3", "mamba_2", "qwen3_next"]
# What a cell of a row is made of, by its heading.
_COLUMNS = {
    "model": "{model}",
    "mixer": "{kind}",
    "engine": "{engine}",
    "L": "{length}",
    "spectra": "{spectra:,}",
    "seconds": "{seconds:.1f}",
    "capture": "{capture_seconds:.1f}",
    "operators": "{operator_seconds:.1f}",
    "measuring": "{measuring_seconds:.1f}",
    "µs each": "{microseconds_per_spectrum:.2f}",
    "ratio": "{ratio:,.0f}×",
    "memory": "{mebibytes:,.0f} MiB",
    "all layers": "{layers} in {minutes:,.1f} min",
}


def models(
    *,
    case: Annotated[tuple[Case, ...], Parameter(negative="", show_default=False)] = (),
    length: Annotated[int | None, Parameter(validator=validators.Number(gte=32))] = None,
    threads: Count | None = None,
    quick: Flag = False,
    output: Path | None = None,
    printing: Printing = TEXT,
) -> None:
    """Measure one full-width layer of published models, with random weights, and print one table.

    Each layer runs in a process of its own, as in a profile: counts and entropy at all positions of all heads or
    channels. A ratio is the time of the definition, torch.linalg.svdvals of each H_i in a loop, divided by the time of
    the layer. The loop is timed on a sample of heads and positions, and scaled. Memory is that beside the model.

    Args:
        case: Measure only these models. Default: all.
        length: Tokens. Default: 2048, or 192 with --quick.
        threads: CPU threads. With one thread, processor time is measured. Default: torch's choice.
        quick: Take less than a minute, to see that it works: narrow models, short sequences.
        output: File for the JSON document.
        printing: What is printed.
    """
    from statesize.benchmarks.models import benchmark_models, model_cases

    chosen = tuple(item for item in model_cases(quick) if item.name in case or not case)
    total = len(chosen)

    def run(report: Callable[[str], None]) -> dict[str, Any]:
        return benchmark_models(
            chosen, length, quick, on_row=lambda row: report(f"{row['model']}: {row['seconds']:.3g} s")
        )

    run_benchmark("bench models", total, run, _print_models, threads, output, printing)


def _print_models(document: dict[str, Any]) -> None:
    from statesize.cli.shared.table import print_table

    rows = document["rows"]
    notes = (
        f"The definition was timed at {max(row['dense_positions'] for row in rows)} positions of "
        f"{max(row['dense_units'] for row in rows)} heads or channels and scaled to all; {conditions(document)}.",
        "Counts at one absolute and one relative tolerance, and entropy.",
    )
    units = [{"mebibytes": row["peak_bytes"] / 2**20, "minutes": row["model_seconds"] / 60} for row in rows]
    cells = [[cell.format(**row, **more) for cell in _COLUMNS.values()] for row, more in zip(rows, units, strict=True)]
    print_table(tuple(_COLUMNS), cells, left=3, notes=notes)
