"""`statesize demo`: the bundled models over the bundled documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from statesize.cli.shared.options import OpenPage, check_page
from statesize.cli.shared.printing import TEXT, Printing

if TYPE_CHECKING:
    from statesize.profiling import Profile


def demo(
    *,
    output: Path = Path("statesize-demo.html"),
    open_page: OpenPage = False,
    printing: Printing = TEXT,
) -> None:
    """Profile four bundled models over bundled documents, and cut one: print the result, and write a page of charts.

    Args:
        output: The page.
        open_page: Open the page in the browser.
        printing: What is printed.
    """
    check_page(output, open_page=False)

    from statesize.cli.shared.printing import SCHEMA, print_json, profile_document, tell_page
    from statesize.cli.shared.summary import summary
    from statesize.cli.shared.table import print_notes, print_page
    from statesize.lab import zoo
    from statesize.measurement.settings import Settings
    from statesize.profiling.profile_run import profile_bar
    from statesize.profiling.run import run_profile
    from statesize.report import write_report
    from statesize.report.words import model_line
    from statesize.texts.inputs import bundled_sequences
    from statesize.truncation.truncate import truncate

    inputs = bundled_sequences(zoo.tokenizer(), 4, 256)
    loaded = {name: zoo.load(name) for name in zoo.names()}
    profiles: list[Profile] = []
    with printing.bars() as bars:
        for name, (model, tokenizer) in loaded.items():
            on_progress = profile_bar(bars, name, len(inputs))
            profiles.append(
                run_profile(
                    model,
                    inputs,
                    Settings(),
                    tokenizer=tokenizer,
                    name=name,
                    source={"kind": "bundled"},
                    on_progress=on_progress,
                )
            )
    with printing.step("cutting gla"):
        model, tokenizer = loaded["gla"]
        cut = truncate(model, documents=6, tokens=128, tokenizer=tokenizer, name="gla")
    with printing.step("drawing the report"):
        write_report(profiles, output)
    if printing.json:
        models = [profile_document(item, None) for item in profiles]
        print_json({"schema": SCHEMA, "models": models, "truncation": cut.to_dict(), "report": str(output)})
    else:
        print_page(summary(profiles))
        print_notes([*map(model_line, profiles), cut.finding])
    tell_page(output, printing, open_page=open_page)
    printing.next("profile", zoo.names()[-1], "--open")
