"""What every study says when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statesize.cli.output.printing import Printing
    from statesize.rerun.recipe import Recipe
    from statesize.studies.page.conclusion import Conclusion


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
    """Keep how the study is repeated, tell on stderr where the files are, and print the conclusion on stdout.

    Args:
        conclusion: Of the study.
        preset: What was studied: a preset, a grid of the user's own, or a text.
        runs: Trainings, or models that were measured.
        seconds: What it took.
        table: The table that was written; study.html lies beside it, and recipe.json is put there.
        recipe: How the study is repeated.
        printing: What is printed.
        more: JSON values that only this study prints.
    """
    from statesize.cli.output.document import SCHEMA, print_json
    from statesize.rerun.recipe import write_recipe
    from statesize.studies.page.conclusion import known

    write_recipe(table.parent, recipe)
    printing.say(f"Table: {table}")
    printing.say(f"Report: {table.with_name('study.html')}")
    if not printing.json:
        print("\n".join(conclusion.lines()))
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
