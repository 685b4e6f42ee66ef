"""`statesize models`: which models can be measured."""

from __future__ import annotations

from statesize.cli.options import Flag

NOTES = """Other families work too if their attention comes from the library's registry
or from torch; each run checks T against the model. A short convolution inside another mixer is measured on request. For
any other mixer, give its class a method `operator(hidden)` that returns a statesize Operator."""


def models(*, json: Flag = False) -> None:
    """List the families of transformers models that can be measured, their mixers and what each can keep.

    Args:
        json: Print one JSON document instead of a table.
    """
    from importlib.metadata import version

    from statesize.adapters.families import FAMILIES, STATE_SIZES

    if json:
        from statesize.cli.document import SCHEMA, print_json

        families = [
            {
                "family": family.name,
                "mixers": [{"kind": kind, "state_size": STATE_SIZES[kind]} for kind in family.mixers],
                "checked": list(family.checked),
            }
            for family in FAMILIES
        ]
        print_json({"schema": SCHEMA, "transformers": version("transformers"), "families": families})
        return
    rows = [("family", "mixers", "TSS per channel at position i", "checked with transformers")]
    for family in FAMILIES:
        sizes = [STATE_SIZES[kind] for kind in family.mixers]
        rows.append((family.name, ", ".join(family.mixers), ", ".join(sizes), ", ".join(family.checked)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\ntransformers {version('transformers')} is installed. {NOTES}")
