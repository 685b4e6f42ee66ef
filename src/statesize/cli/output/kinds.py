"""ESS by kind of document, as a table on stdout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from statesize.cli.output.table import print_table
from statesize.measurement.statistics import signed
from statesize.report.kinds import largest_difference

if TYPE_CHECKING:
    from statesize.report.kinds import LayerKinds


def print_kinds(layers: Sequence[LayerKinds], kinds: Sequence[str]) -> None:
    """Print a row a layer: the mean of each kind, and the two kinds that differ most."""
    rows: list[list[str]] = []
    for one in layers:
        (first, second), difference = largest_difference(one)
        means = [f"{mean.value:.1f}" for mean in one.means.values()]
        rows.append([one.layer, *means, signed(difference), f"{first} → {second}"])
    counts = ", ".join(f"{count} of {kind}" for kind, count in sorted(Counter(kinds).items()))
    notes = [
        f"Entropy-ESS by kind of document: {counts}. Intervals of 95 % are Welch’s, over documents and for all pairs "
        "of kinds together."
    ]
    print()
    print_table(["layer", *layers[0].means, "largest\ndifference", ""], rows, 1, notes)
