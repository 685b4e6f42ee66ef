"""`statesize study delimiters`: what delimiters do to the memory of language models."""

from __future__ import annotations

from pathlib import Path

from statesize.cli.options.kinds import Flag
from statesize.cli.options.loading import Loading, Place
from statesize.cli.output.printing import TEXT, Printing
from statesize.cli.study.texts import Reading, crew_at, print_plans


def delimiters(
    *models: str,
    reading: Reading | None = None,
    loading: Loading | None = None,
    place: Place | None = None,
    plan: Flag = False,
    output: Path = Path("statesize-study-delimiters"),
    printing: Printing = TEXT,
) -> None:
    """Measure how ESS dips at the delimiters of a text, and at the same places of controls without them.

    OUTPUT receives table.parquet (depths of models, layers and heads), curves.parquet and study.html; and what is
    finished as parts/*.parquet, with one row a sequence, head and offset.

    Args:
        models: Bundled names, folders, or ids of the Hugging Face hub; the bundled models of re-binding recall if none
            are given.
        reading: What they read.
        loading: How they are loaded.
        place: Who measures.
        plan: Only print how many sequences there are, and the time and disk that a sample predicts.
        output: Folder; the same command goes on from what is finished there.
        printing: What is printed.
    """
    import time

    from statesize.cli.study.result import print_study
    from statesize.files import only_writer
    from statesize.rerun.recipe import make_recipe
    from statesize.studies.delimiters.charts import delimiters_charts
    from statesize.studies.delimiters.claim import curve_rows, dip_rows
    from statesize.studies.delimiters.claim import delimiters as conclude
    from statesize.studies.delimiters.dips import ModelDips
    from statesize.studies.delimiters.sequences import CONDITIONS
    from statesize.studies.grid.table import ResultTable
    from statesize.studies.page.page import TABLE, write_page

    started, left_out, given, place = time.perf_counter(), list[str](), reading or Reading(), place or Place()
    printing.hush_libraries()
    if plan:
        found = given.subjects(models, loading, left_out, printing)
        print_plans("delimiters", given.plan(found, given.windows(found), CONDITIONS), json=printing.json)
        return
    table = ResultTable.open(output, "delimiters")
    options, threads = vars(given) | vars(loading or Loading()), None if place.ray is False else place.ray_cpus
    recipe = make_recipe(["study", "delimiters"], options, models=models, threads=threads)
    found = given.subjects(models, loading, left_out, printing)
    windows, results = given.windows(found), list[ModelDips]()
    with only_writer(output), printing.bars() as bars, crew_at(place) as crew:
        for subject in found:
            results.append(given.measure(subject, None, windows, CONDITIONS, output, crew, bars))
            table.write(dip_rows(results))
            table.write(curve_rows(results), "curves.parquet")
        conclusion = conclude(results, given.delimiter)
        write_page(conclusion, delimiters_charts(results), dip_rows(results), output)
    seconds = time.perf_counter() - started
    print_study(conclusion, given.name, len(results), seconds, output / TABLE, recipe, printing, left_out=left_out)
