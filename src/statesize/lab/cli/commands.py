"""The laboratory's commands, each with examples, and the shortest of them: `statesize demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from statesize.cli.app import LABORATORY, add, app, register
from statesize.cli.shared.options import OpenPage
from statesize.cli.shared.printing import TEXT, Printing
from statesize.lab.cli.needles import needles
from statesize.lab.cli.rerun import rerun
from statesize.lab.cli.study_grid import grid_command
from statesize.lab.cli.study_texts import text_command
from statesize.lab.cli.train import train
from statesize.lab.cli.trends import length, series
from statesize.lab.studies.catalogue import STUDIES
from statesize.lab.studies.study import GridStudy

if TYPE_CHECKING:
    from statesize.profiling import Profile


study = App(name="study", help="Train or measure many models, and see what ESS shows.", group=LABORATORY)


def add_commands() -> None:
    """Register them under their own title of the help."""
    app.command(study)
    add("demo", demo, "", "--output demo.html --json", title=LABORATORY)
    add("length", length, "gla --lengths 64,128,256,512 --html length.html", title=LABORATORY)
    add("needles", needles, "gla --depths 8,64 --html needles.html", title=LABORATORY)
    add("rerun", rerun, "result", title=LABORATORY)
    add(
        "series",
        series,
        "run --html series.html",
        "EleutherAI/pythia-14m --revisions step0,step1000",
        title=LABORATORY,
    )
    add(
        "train",
        train,
        "text --mixer gla --output run",
        "text --mixer gla --output run --resume",
        title=LABORATORY,
    )
    for one in STUDIES:
        command = grid_command(one) if isinstance(one, GridStudy) else text_command(one)
        register(study, LABORATORY, one.name, command, one.examples, one.help)


def demo(
    *,
    output: Path = Path("statesize-demo.html"),
    open_page: OpenPage = False,
    printing: Printing = TEXT,
) -> None:
    """Profile four bundled models over bundled documents: print the result, and write a page of charts.

    Args:
        output: The page.
        open_page: Open the page in the browser.
        printing: What is printed.
    """
    from statesize.cli.shared.printing import SCHEMA, print_json, profile_document, tell_page
    from statesize.cli.shared.summary import print_summary
    from statesize.lab import zoo
    from statesize.profiling import profile
    from statesize.profiling.profile_run import profile_bar
    from statesize.report import check_report_path, write_report
    from statesize.texts.inputs import bundled_sequences

    check_report_path(output)
    inputs = bundled_sequences(zoo.tokenizer())
    profiles: list[Profile] = []
    with printing.bars() as bars:
        for name in zoo.names():
            model, tokenizer = zoo.load(name)
            on_progress = profile_bar(bars, name, len(inputs))
            profiles.append(
                profile(
                    model,
                    inputs,
                    tokenizer=tokenizer,
                    name=name,
                    source={"kind": "bundled"},
                    on_progress=on_progress,
                )
            )
    with printing.step("drawing the report"):
        write_report(profiles, output)
    if printing.json:
        print_json(
            {"schema": SCHEMA, "models": [profile_document(item, None) for item in profiles], "report": str(output)}
        )
    else:
        print_summary(profiles)
    tell_page(output, printing, open_page=open_page)
