"""The commands and what they are called."""

from __future__ import annotations

from cyclopts import App

from statesize.version import __version__

app = App(
    name="statesize",
    help="Measure how much of its memory a sequence model really uses: the effective state-size (ESS).",
    version=__version__,
    suppress_keyboard_interrupt=False,
)
# By name, because the commands bring torch and altair with them, which --help and --version need not wait for.
bench = App(name="bench", help="Time the engines.")
bench.command("statesize.cli.bench:engines", name="engines", help="Time every engine against the definition.")
bench.command("statesize.cli.bench_models:models", name="models", help="Measure a layer of published models.")
app.command(bench)
app.command("statesize.cli.compare:compare", name="compare", help="Put saved profiles of several models side by side.")
app.command("statesize.cli.demo:demo", name="demo", help="Profile the bundled models and write a report.")
app.command("statesize.cli.doctor:doctor", name="doctor", help="Say what is installed and check that it is right.")
app.command("statesize.cli.engines:engines", name="engines", help="List the engines and say which one is taken.")
app.command("statesize.cli.models:models", name="models", help="List the models that can be measured.")
app.command("statesize.cli.profile:profile", name="profile", help="Profile a model over a text.")
app.command("statesize.cli.rerun:rerun", name="rerun", help="Repeat a result and compare.")
app.command("statesize.cli.report:report", name="report", help="Write the HTML report of a saved profile.")
study = App(name="study", help="Train grids of small models and see what ESS tells.")
study.command("statesize.cli.study:correlation", name="correlation", help="Does ESS tell accuracy better than TSS?")
study.command("statesize.cli.study:distillation", name="distillation", help="What can a student with less state learn?")
study.command("statesize.cli.study:hybrids", name="hybrids", help="Where should attention stand in a hybrid?")
study.command("statesize.cli.study:initialisation", name="initialisation", help="How should the decays of S6 start?")
study.command("statesize.cli.study:regimes", name="regimes", help="Which mixers fill their state, which do not?")
study.command("statesize.cli.study:regularisation", name="regularisation", help="Can a term in the loss undo collapse?")
study.command("statesize.cli.study_delimiters:delimiters", name="delimiters", help="Does ESS dip at delimiters?")
study.command("statesize.cli.study_recall:recall", name="recall", help="Does memory that dips at delimiters recall?")
app.command(study)
app.command("statesize.cli.train:train", name="train", help="Train a small language model.")
app.command("statesize.cli.watch:watch", name="watch", help="Draw the ESS of each layer while text comes.")
