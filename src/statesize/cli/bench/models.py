"""`statesize bench models`: layers of published models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from statesize.cli.bench.running import conditions, run_benchmark
from statesize.cli.options.kinds import Count, Flag
from statesize.cli.output.printing import TEXT, Printing

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
    case: Annotated[tuple[Case, ...], Parameter(negative="")] = (),
    length: Annotated[int | None, Parameter(validator=validators.Number(gte=32))] = None,
    threads: Count | None = None,
    quick: Flag = False,
    output: Path | None = None,
    printing: Printing = TEXT,
) -> None:
    """Measure one full-width layer of published models, with random weights, and print one table.

    Each runs in a process of its own, through capture and the blocks of a profile: counts and entropy at all positions
    of all heads or channels. A ratio is the seconds of the definition, torch.linalg.svdvals of each H_i in a loop, over
    all seconds of the layer; the loop is timed on a sample of heads and positions, and scaled. Memory is what is held
    above the model itself.

    Args:
        case: Only this one, or these.
        length: Tokens; 2048 if not given, 192 with --quick.
        threads: CPU threads; as torch has them if not given. With one, processor time is counted.
        quick: Narrow models and short sequences: less than a minute, to see that it works.
        output: File for the JSON document.
        printing: What is printed.
    """
    from statesize.benchmarks.model_cases import model_cases
    from statesize.benchmarks.models import benchmark_models

    chosen = tuple(item for item in model_cases(quick) if item.name in case or not case)
    total = len(chosen)

    def run(tell: Callable[[str], None]) -> dict[str, Any]:
        return benchmark_models(
            chosen, length, quick, on_row=lambda row: tell(f"{row['model']}: {row['seconds']:.3g} s")
        )

    run_benchmark("bench models", total, run, _print, threads, output, printing)


def _print(document: dict[str, Any]) -> None:
    from statesize.cli.output.table import print_table

    rows = document["rows"]
    notes = (
        f"The definition was timed at {max(row['dense_positions'] for row in rows)} positions of "
        f"{max(row['dense_units'] for row in rows)} heads or channels and scaled to all; {conditions(document)}.",
        "Counts at one absolute and one relative tolerance, and entropy.",
    )
    units = [{"mebibytes": row["peak_bytes"] / 2**20, "minutes": row["model_seconds"] / 60} for row in rows]
    cells = [[cell.format(**row, **more) for cell in _COLUMNS.values()] for row, more in zip(rows, units, strict=True)]
    print_table(tuple(_COLUMNS), cells, left=3, notes=notes)
