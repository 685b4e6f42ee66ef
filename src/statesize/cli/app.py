"""The App objects that commands are registered to."""

from __future__ import annotations

from cyclopts import App

from statesize.version import __version__

app = App(
    name="statesize",
    help="Measure how much of its memory a sequence model really uses: the effective state-size (ESS).",
    # Docstrings and examples stand as they are written.
    help_format="plaintext",
    version=__version__,
    suppress_keyboard_interrupt=False,
)
bench = App(name="bench", help="Time the engines.")
study = App(name="study", help="Train or measure many models, and see what ESS tells.")
app.command(bench)
app.command(study)
