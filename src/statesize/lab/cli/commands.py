"""The laboratory's commands, each with examples."""

from __future__ import annotations

from cyclopts import App

from statesize.cli.app import LABORATORY, add, app, register
from statesize.lab.cli.demo import demo
from statesize.lab.cli.length import length
from statesize.lab.cli.needles import needles
from statesize.lab.cli.rerun import rerun
from statesize.lab.cli.series import series
from statesize.lab.cli.study_grid import grid_command
from statesize.lab.cli.study_texts import text_command
from statesize.lab.cli.train import train
from statesize.lab.studies.catalogue import STUDIES
from statesize.lab.studies.study import GridStudy

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
        "text --mixer gla --output run --resume --export gla",
        title=LABORATORY,
    )
    for one in STUDIES:
        command = grid_command(one) if isinstance(one, GridStudy) else text_command(one)
        register(study, LABORATORY, one.name, command, one.examples, one.help)
