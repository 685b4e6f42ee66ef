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
_HEADINGS = (
    "model",
    "mixer",
    "engine",
    "L",
    "spectra",
    "seconds",
    "capture",
    "operators",
    "measuring",
    "µs each",
    "ratio",
    "memory",
    "all layers",
)


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
        return benchmark_models(chosen, length, quick, on_row=lambda row: tell(f"{row.model}: {row.seconds:.3g} s"))

    run_benchmark("bench models", total, run, _print, threads, output, printing)


def _print(document: dict[str, Any]) -> None:
    from statesize.cli.output.table import print_table

    rows = document["rows"]
    bounds = [f" ({row['model']}: bounds {row['count_accuracy']:.0%} apart)" for row in rows if row["count_accuracy"]]
    notes = (
        f"The definition was timed at {max(row['dense_positions'] for row in rows)} positions of "
        f"{max(row['dense_units'] for row in rows)} heads or channels and scaled to all; {conditions(document)}.",
        f"Counts at one absolute and one relative tolerance{''.join(bounds)}, and entropy.",
    )
    print_table(_HEADINGS, [_cells(row) for row in rows], left=3, notes=notes)


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["model"],
        row["kind"],
        row["engine"],
        f"{row['length']}",
        f"{row['spectra']:,}",
        f"{row['seconds']:.1f}",
        f"{row['capture_seconds']:.1f}",
        f"{row['operator_seconds']:.1f}",
        f"{row['measuring_seconds']:.1f}",
        f"{row['microseconds_per_spectrum']:.2f}",
        f"{row['ratio']:,.0f}×",
        f"{row['peak_bytes'] / 2**20:,.0f} MiB",
        f"{row['layers']} in {row['model_seconds'] / 60:,.1f} min",
    ]
