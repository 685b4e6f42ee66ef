"""The result of any study, as it is printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statesize.cli.shared.printing import Printing
    from statesize.io.recipe import Recipe
    from statesize.lab.studies.page.conclusion import Conclusion


def print_study(
    conclusion: Conclusion,
    preset: str,
    runs: int,
    seconds: float,
    table: Path,
    recipe: Recipe,
    printing: Printing,
    **more: Any,
) -> None:
    """Store how the study is repeated, print to stderr where the files are, and print the conclusion on stdout."""
    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.io.recipe import write_recipe
    from statesize.io.text import printable
    from statesize.lab.studies.page.conclusion import known

    write_recipe(table.parent, recipe)
    printing.say(f"Table: {table}")
    printing.say(f"Report: {table.with_name('study.html')}")
    if not printing.json:
        print("\n".join(map(printable, conclusion.lines())))
        return
    document = {
        "schema": SCHEMA,
        "study": conclusion.study,
        "preset": preset,
        "claim": conclusion.claim,
        "holds": conclusion.holds,
        "figures": known(conclusion.figures),
        "runs": runs,
        "seconds": seconds,
        "table": str(table),
        "recipe": recipe.to_dict(),
    }
    print_json(document | more)
