"""`statesize models`: what can be measured."""

from __future__ import annotations

from collections.abc import Collection

from statesize.cli.shared.printing import TEXT, Printing
from statesize.errors import InputError

NOTES = (
    "Each row is a tiny model of the family whose operators equal the model's own attention maps, or what its own code "
    "makes of impulses. Other models are checked while they are measured, and layers that fail are named. A short "
    "convolution inside another mixer is measured on request. For any other mixer, give its class a method "
    "`operator(hidden)` that returns a statesize Operator."
)


def models(name: str = "", /, *, printing: Printing = TEXT) -> None:
    """List what can be measured, by library: families of transformers, kernels of flash-linear-attention, and others.

    Args:
        name: Only families and layers with this in their name or mixers, such as deltanet.
        printing: What is printed.

    Raises:
        InputError: Nothing has such a name.
    """
    from importlib.metadata import version

    from statesize.adapters.fla.source import SUPPORTED, kinds
    from statesize.adapters.sources import OTHER_LIBRARIES, STATE_SIZES, swept
    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.cli.shared.table import print_notes, print_table
    from statesize.report.result_page import PageTable

    sweep, installed = swept(), version("transformers")
    known = [family for family in sweep.of("measured") if _meant(name, family.name, *family.mixers)]
    others = [family for family in sweep.families if family.status != "measured" and _meant(name, family.name)]
    layers = [kind for kind in kinds() if _meant(name, kind)]
    libraries = {library: mixers for library, mixers in OTHER_LIBRARIES.items() if _meant(name, library, *mixers)}
    if not (known or others or layers or libraries):
        raise InputError(f"name must be part of a family's or layer's name, got {name!r}. statesize models lists all.")
    if printing.json:
        reasons = [{"family": one.name, "status": one.status, "reason": one.reason} for one in others]
        families = [
            {"family": one.name, "model": one.model, "mixers": _sizes(one.mixers, STATE_SIZES), "maps": one.maps}
            | {"impulses": one.impulses, "skipped": one.reason, "versions": one.versions}
            for one in known
        ]
        listing = {"transformers": installed, "checked": sweep.transformers, "families": families, "others": reasons}
        listing |= {"flash-linear-attention": {"version": SUPPORTED, "mixers": _sizes(layers, STATE_SIZES)}}
        listing |= {library: {"mixers": _sizes(mixers, STATE_SIZES)} for library, mixers in libraries.items()}
        print_json({"schema": SCHEMA, **listing})
        return
    counts = {
        "families of transformers": len(known),
        "mixers of flash-linear-attention": len(layers),
        "mixers of other libraries": sum(map(len, libraries.values())),
    }
    found = "; ".join(f"{what}, {count}" for what, count in counts.items() if count)
    print_notes([f"Can be measured: {found or 'none of that name'}.", ""])
    size = "TSS per channel at position i"
    families = [(one.name, *_cells(one.mixers, STATE_SIZES), sweep.measured_with(one)) for one in known]
    fla = [(kind, STATE_SIZES[kind]) for kind in layers]
    beside = [(library, *_cells(mixers, STATE_SIZES)) for library, mixers in libraries.items()]
    notes = [f"not measured: {family.name}: {family.reason}" for family in others]
    checked = f"Checked with transformers {', '.join(sweep.versions)}; {installed} is installed."
    tables = [
        PageTable("", ("family", "mixers", size, "transformers"), families, "\n".join([*notes, "", checked])),
        PageTable("", (f"layers of flash-linear-attention {SUPPORTED}", size), fla),
        PageTable("", ("other library", "mixers", size), beside),
    ]
    for table in tables:
        if table.rows or (table.caption and others):
            print_table(table)
            print()
    print_notes([NOTES])
    printing.next("profile", "gla", "--open", why="what a small model carries, on a page")


def _meant(part: str, *names: str) -> bool:
    """Whether one of some names contains a part, in capitals or not and with hyphens or without."""
    # A DeltaNet, whatever stands before it, has a delta rule.
    part = _plain(part).replace("deltanet", "delta")
    return any(part in _plain(name) for name in names)


def _plain(name: str) -> str:
    return name.lower().translate(str.maketrans("", "", "-_ "))


def _sizes(kinds: Collection[str], sizes: dict[str, str]) -> list[dict[str, str]]:
    return [{"kind": kind, "state_size": sizes[kind]} for kind in kinds]


def _cells(kinds: Collection[str], sizes: dict[str, str]) -> tuple[str, str]:
    """Kinds of mixers and their sizes, in a row of a table."""
    return ", ".join(kinds), ", ".join(sizes[kind] for kind in kinds)
