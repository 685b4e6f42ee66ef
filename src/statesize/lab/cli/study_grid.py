"""`statesize study NAME` for studies that train a grid, and the result of any study as it is printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter

from statesize.cli.shared.options import Flag
from statesize.cli.shared.printing import TEXT, Printing

if TYPE_CHECKING:
    from statesize.io.progress import Bar
    from statesize.lab.studies.grid.settings import GridSettings
    from statesize.lab.studies.grid.study import StudyProgress
    from statesize.lab.studies.page.conclusion import Conclusion
    from statesize.lab.studies.study import GridStudy


Preset: TypeAlias = Literal["laptop", "record", "paper", "smoke"]
Cluster: TypeAlias = Annotated[bool | str, Parameter(metavar="[ADDRESS]", negative="", show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Options of every study that trains a grid.

    Attributes:
        preset: Size of the grid: laptop takes two cores at most 12 minutes, record is the one that the documentation
            quotes, paper needs a cluster, smoke takes seconds.
        config: TOML file with your own grid, in place of a preset.
        dry_run: Print the grid and about how long it takes. Nothing is trained.
        output: Folder for runs/ (one file for each finished run), table.parquet and study.html. The same command
            continues a stopped study. Default: statesize-study-NAME-PRESET.
        ray: Train on the Ray cluster at ADDRESS. Without an address, start Ray on this machine.
        module: Python file that registers your own mixers or tasks, which the TOML file can then name. It is executed
            in every process.
        verify: Repeat three sampled runs of the record in OUTPUT and compare them. Default: results/studies/NAME.
    """

    preset: Preset = "laptop"
    config: Path | None = None
    dry_run: Flag = False
    output: Path | None = None
    ray: Cluster = False
    module: Path | None = None
    verify: Flag = False


_DEFAULTS = Options()
_MOST_RUNS = 12


def grid_command(study: GridStudy) -> Callable[..., None]:
    """The command of a study that trains a grid."""

    def command(*, options: Options = _DEFAULTS, printing: Printing = TEXT) -> None:
        """Run the study.

        Args:
            options: Those of every study.
            printing: What is printed.
        """
        if options.verify:
            _verify(options.output or Path("results/studies") / study.name)
        else:
            _run(study.name, options, printing)

    return command


def _verify(folder: Path) -> None:
    from statesize.errors import StatesizeError
    from statesize.lab.studies.record import read_record, verify

    record, different = read_record(folder), 0
    print(f"{record.command}: {record.done} of {record.total} runs on record, fixed by commit {record.commit}")
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


def _run(name: str, options: Options, printing: Printing) -> None:
    from statesize.lab.studies.grid.settings import preset_settings, read_settings
    from statesize.lab.studies.grid.user_code import load_module, read_module

    module = None if options.module is None else read_module(options.module)
    if module is not None:
        load_module(module)
    config = options.config
    settings = preset_settings(name, options.preset) if config is None else read_settings(config, name)
    chosen = options.preset if config is None else config.stem
    if options.dry_run:
        _print_plan(settings, chosen, printing.json)
        return
    from statesize.cli.shared.provenance import command_line
    from statesize.lab.studies.conclude import conclude
    from statesize.lab.studies.grid.executors import local_executor, ray_executor
    from statesize.lab.studies.grid.study import run_study

    folder = options.output or Path(f"statesize-study-{name}-{chosen}")
    with printing.bars() as bars:
        if options.ray is False:
            executor = local_executor(settings.execution.workers, module)
        else:
            executor = ray_executor(options.ray if isinstance(options.ray, str) else None, settings.execution, module)
        result = run_study(settings, folder, executor, _progress(bars.begin(f"study {name}")))
    with printing.step("concluding"):
        conclusion = conclude(settings, result.rows, folder, command_line())
    print_study(conclusion, chosen, len(settings.runs), result.seconds, result.path, printing)


def _progress(bar: Bar) -> Callable[[StudyProgress], None]:
    def on_progress(progress: StudyProgress) -> None:
        done = progress.run
        last = done.value[-1] if done.value else {}
        result = done.error or str(last["message"]) or f"accuracy {last['accuracy']:.2f}"
        detail = f"run {progress.done} of {progress.total}: {done.task.label}: {result}"
        bar.update(progress.done, progress.total, detail, left=progress.remaining_seconds)

    return on_progress


def _print_plan(settings: GridSettings, preset: str, json: bool) -> None:
    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.io.progress import duration
    from statesize.lab.studies.grid.cost import predicted_seconds
    from statesize.parallel.ray import available_cores

    workers = settings.execution.workers or available_cores()
    seconds = predicted_seconds(settings.runs, workers)
    runs = [run.label for run in settings.runs]
    if json:
        document = {"study": settings.study, "preset": preset, "runs": runs, "workers": workers, "seconds": seconds}
        print_json({"schema": SCHEMA, **document})
        return
    print(f"{len(runs)} runs, about {duration(seconds)} with {workers} processes on this machine.")
    if len(runs) > _MOST_RUNS:
        runs[_MOST_RUNS // 2 : -_MOST_RUNS // 2] = [f"… {len(runs) - _MOST_RUNS} more, all of them with --json"]
    print("\n".join(runs))


def print_study(
    conclusion: Conclusion,
    preset: str,
    runs: int,
    seconds: float,
    table: Path,
    printing: Printing,
    **more: Any,
) -> None:
    """Print to stderr where the files are, and the conclusion on stdout."""
    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.cli.shared.provenance import command_line
    from statesize.io.text import printable

    printing.say(f"Table: {table}")
    printing.say(f"Report: {table.with_name('study.html')}")
    if not printing.json:
        print("\n".join(map(printable, conclusion.lines())))
        return
    made = {"preset": preset, "runs": runs, "seconds": seconds, "table": str(table), "command": command_line()}
    print_json({"schema": SCHEMA, **conclusion.to_dict(), **made, **more})
