"""`statesize bench`: the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators

from statesize.cli.bench.running import conditions, run_benchmark
from statesize.cli.options.kinds import Count, Flag
from statesize.cli.output.printing import TEXT, Printing

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

    A ratio is the seconds of the loop over those of the engine, both in this process, in turn, with set-up; medians of
    three rounds. The loop is timed at 8 evenly spread positions and scaled to all. Errors are those at these positions;
    memory is that of the operator and the measurement, in a process of its own.

    Args:
        length: Sequence length; 2048 if not given, 256 with --quick. One case is 8 times as long.
        threads: CPU threads, for both sides. With one, processor time is counted, which a busy machine does not change.
        quick: Short sequences, few channels, one round: less than a minute, to see that it works.
        output: File for the JSON document.
        printing: What is printed.
    """
    from statesize.benchmarks.cases import cases
    from statesize.benchmarks.engines import benchmark
    from statesize.spectra.choice import ENGINES

    total = sum(len(case.outputs) for case in cases(quick)) + len(ENGINES)

    def run(tell: Callable[[str], None]) -> dict[str, Any]:
        return benchmark(
            length,
            quick,
            on_row=lambda row: tell(f"{row.case}: {row.output} {row.seconds:.3g} s"),
            on_growth=lambda engine, slope: tell(f"{engine}: L to the power of {slope:.2f}"),
        )

    run_benchmark("bench engines", total, run, _print, threads, output, printing)


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def _print(document: dict[str, Any]) -> None:
    from statesize.cli.output.table import print_table

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
