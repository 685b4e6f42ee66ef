"""`statesize lab study`: do a study, or verify its record."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statesize.check import refuse
from statesize.cli.shared.options import Flag, Listed, Ray, listed, ray_cluster
from statesize.cli.shared.printing import TEXT, Printing, hush_libraries
from statesize.io.progress import Bar, say

if TYPE_CHECKING:
    from statesize.lab.studies.engine.study import Study
    from statesize.parallel.threads import Done

RECORDS = (Path("results/studies"), Path("experiments"))
"""Where a clone of the repository keeps records, a folder for each study."""


def study(
    name: str | None = None,
    /,
    *,
    preset: str = "smoke",
    output: Path | None = None,
    verify: Flag = False,
    from_: Listed | None = None,
    text: Path | None = None,
    plugin: Path | None = None,
    ray: Ray = False,
    printing: Printing = TEXT,
) -> None:
    """Train or measure many models, and see what ESS shows.

    Args:
        name: Default: list all studies.
        preset: Grid that comes with the study: smoke takes seconds, laptop minutes, and record, which the documentation
            quotes, up to hours.
        output: Folder for runs/NAME/ (one file for each finished run), table.parquet and study.html. The same command
            continues a stopped study. Default: statesize-study-NAME-PRESET.
        verify: Recompute the record in OUTPUT from its table and compare. Default: that of the clone.
        from_: Models that delimiters measures: bundled names, folders, ids of the Hugging Face hub, or the name of a
            recall model with a seed (recall-gla-7), which is trained. Default: those of the preset.
        text: Text file that they read, or a .jsonl or .parquet file. Default: that of the preset.
        plugin: Python file that registers mixers, tasks or studies of your own.
        ray: Spread the runs over processes on Ray. ADDRESS is that of a cluster; without one, Ray starts here.
        printing: What is printed.
    """
    from statesize.lab.registry import load_plugin
    from statesize.lab.studies.engine.study import questions
    from statesize.lab.studies.engine.study import study as studies

    if plugin is not None:
        load_plugin(plugin)
    if name is None:
        shown = {known: studies[known].question() for known in studies.names()} if plugin is not None else questions()
        for known, question in shown.items():
            print(f"{known}: {question}")
        return
    chosen = studies[name]()
    if verify:
        _verify(chosen, output)
        return
    grid, models = chosen.preset(preset), tuple(listed(from_ or ()))
    if (models or text) and not hasattr(grid, "models"):
        refuse("from", "left out for a study that trains its models", ",".join(models) or str(text))
    if models or text:
        grid = replace(grid, text=str(text) if text else grid.text, models=models or grid.models)

    from statesize.cli.shared.printing import command_line, print_json, print_page
    from statesize.lab.studies.engine.run import run_study
    from statesize.parallel.threads import here

    hush_libraries()
    total, folder = len(chosen.runs(grid)), output or Path(f"statesize-study-{name}-{preset}")
    with Bar(f"study {name}") as bar:
        result = run_study(chosen, grid, folder, ray_cluster(ray) or here, partial(_tell, bar, total), command_line())
    say(f"Table: {result.path}")
    say(f"Report: {result.path.with_name('study.html')}")
    if printing.json:
        made = {"preset": preset, "runs": total, "seconds": result.seconds, "table": str(result.path)}
        print_json({**result.conclusion.to_dict(), **made, "command": command_line()})
    else:
        print_page(result.conclusion.page())


def _tell(bar: Bar, total: int, done: Done[Any, list[dict[str, Any]]], number: int) -> None:
    last = done.value[-1] if done.value else {}
    result = done.error or last.get("message") or ("" if "accuracy" not in last else f"accuracy {last['accuracy']:.2f}")
    detail = f"run {number} of {total}: {done.task.label}" + (f": {result}" if result else "")
    bar.update(number, total, detail)


def _verify(chosen: Study, folder: Path | None) -> None:
    from statesize.lab.studies.engine.record import RECORD, verify

    folders = [records / chosen.kind for records in RECORDS]
    kept = verify(chosen, folder or next((known for known in folders if (known / RECORD).is_file()), folders[0]))
    runs = f"{kept['done']} of {kept['total']} runs on record, fixed by commit {kept['made']['commit']}"
    verdict = {True: "holds", False: "fails", None: "cannot tell"}[kept["holds"]]
    print(f"{chosen.kind}: {runs}. Verdict ({verdict}) and figures follow from its table.")
