"""`statesize study`: each study by its name, and the folder of one that is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App, Parameter

from statesize.check import refuse
from statesize.cli.app import app, register
from statesize.cli.shared.options import Flag, Workers
from statesize.cli.shared.printing import TEXT, Printing
from statesize.io.text import counted, meant
from statesize.lab.studies.catalogue import QUESTIONS, load_study

if TYPE_CHECKING:
    from statesize.io.progress import Bar
    from statesize.lab.studies.engine.conclusion import Conclusion
    from statesize.lab.studies.engine.study import Grid, Run, Study
    from statesize.parallel.threads import Done


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Options of every study.

    Attributes:
        preset: Grid that comes with the study: smoke takes at most minutes, record is the one that the documentation
            quotes and takes up to hours.
        config: TOML file with your own grid, in place of a preset.
        output: Folder for runs/NAME/ (one file for each finished run), table.parquet and study.html. The same command
            continues a stopped study. Default: statesize-study-NAME-PRESET.
        verify: Repeat three sampled runs of the record in OUTPUT and compare them. Default: results/studies/NAME.
    """

    preset: str = "smoke"
    config: Path | None = None
    output: Path | None = None
    verify: Flag = False


_DEFAULTS, _HERE = Options(), Workers()


def _command(name: str) -> Callable[..., None]:
    def command(*, options: Options = _DEFAULTS, workers: Workers = _HERE, printing: Printing = TEXT) -> None:
        """Run the study.

        Args:
            options: Those of every study.
            workers: Who does the runs.
            printing: What is printed.
        """
        one = load_study(name)
        if options.verify:
            _verify(one, options.output or Path("results/studies") / one.name)
            return
        grid = one.preset(options.preset) if options.config is None else one.read(options.config)
        chosen = options.preset if options.config is None else options.config.stem
        _run(one, chosen, grid, options, workers, printing)

    return command


study = App(name="study", help_epilogue="Example:\n\n    statesize study statesize-study-regimes-smoke")
for name, question in QUESTIONS.items():
    register(study, None, name, _command(name), (f"statesize study {name} --preset smoke",), question)


def _run(one: Study, chosen: str, grid: Grid, options: Options, workers: Workers, printing: Printing) -> None:
    from statesize.cli.shared.provenance import command_line
    from statesize.lab.studies.engine.run import run_study
    from statesize.parallel.threads import here

    printing.hush_libraries()
    crew = workers.cluster() or here
    folder = options.output or Path(f"statesize-study-{one.name}-{chosen}")
    with printing.bars() as bars:
        bar = bars.begin(f"study {one.name}", len(grid.runs))
        result = run_study(one, grid, folder, crew, partial(_tell, bar, len(grid.runs)), command_line())
    printing.say(f"Table: {result.path}")
    printing.say(f"Report: {result.path.with_name('study.html')}")
    made = {"preset": chosen, "runs": len(grid.runs), "seconds": result.seconds, "table": str(result.path)}
    _print_conclusion(result.conclusion, {**made, "command": command_line()}, printing)
    printing.next("study", folder, "--json", why="all its figures")


def _print_conclusion(conclusion: Conclusion, made: dict[str, Any], printing: Printing) -> None:
    """Print what a study concluded, or the document of it and of how it was made."""
    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.io.text import printable

    if printing.json:
        print_json({"schema": SCHEMA, **conclusion.to_dict(), **made})
    else:
        print("\n".join(map(printable, conclusion.lines())))


def _tell(bar: Bar, total: int, done: Done[Run, list[dict[str, Any]]], number: int) -> None:
    last = done.value[-1] if done.value else {}
    result = done.error or last.get("message") or ("" if "accuracy" not in last else f"accuracy {last['accuracy']:.2f}")
    detail = f"run {number} of {total}: {done.task.label}" + (f": {result}" if result else "")
    bar.update(number, total, detail)


def _verify(one: Study, folder: Path) -> None:
    from statesize.errors import StatesizeError
    from statesize.lab.studies.engine.record import read_record, verify

    record, different = read_record(one, folder), 0
    print(
        f"{record.command}: {record.done} of {counted(record.total, 'run')} on record, fixed by commit {record.commit}"
    )
    elsewhere = not record.is_of_this_machine
    if elsewhere:
        print(
            f"The runs were done on another machine ({record.done_on}), where training ends with other digits. What is "
            "measured before the first step is compared, and the accuracy at the end is shown."
        )
    for run in verify(record):
        verdict = f"differs in {', '.join(run.columns)}" if run.columns else "equal"
        old, new = run.accuracies
        ended = f"; accuracy at the end {new:.3f}, on record {old:.3f}" if elsewhere else ""
        print(f"{run.label}: {verdict}{ended}", flush=True)
        different += bool(run.columns)
    if different:
        raise StatesizeError(f"{different} of the runs that were repeated differ from the record in {folder}")


@study.default
def stored_study(folder: Path | None = None, /, *, printing: Printing = TEXT) -> None:
    """Print what a study concluded.

    Args:
        folder: Folder of a study that is done.
        printing: What is printed.
    """
    from statesize.lab.studies.engine.conclusion import read_saved

    if folder is None:
        app.help_print(["study"])
        return
    if not folder.exists():
        advice = meant(str(folder), list(QUESTIONS), f"Studies are {', '.join(QUESTIONS)}.")
        refuse("study", "the name of a study, or the folder of one that is done", str(folder), advice)
    saved = read_saved(folder)
    made = {"command": saved.command, "versions": saved.versions, "machine": saved.machine}
    _print_conclusion(saved.conclusion, made, printing)
    printing.next("study", folder, "--json", why="all its figures")
