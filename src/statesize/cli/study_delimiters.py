"""`statesize study delimiters`: what delimiters do to the memory of language models."""

from __future__ import annotations

from pathlib import Path

from statesize.cli.printing import TEXT, Printing
from statesize.cli.profile import Loading
from statesize.cli.study_texts import Reading, telling


def delimiters(
    *models: str,
    reading: Reading | None = None,
    loading: Loading | None = None,
    output: Path = Path("statesize-study-delimiters"),
    printing: Printing = TEXT,
) -> None:
    """Measure how ESS dips at the delimiters of a text, and at the same places of controls without them.

    OUTPUT receives table.parquet (depths of models, layers and heads), curves.parquet and study.html.

    Args:
        models: Bundled names, folders, or ids of the Hugging Face hub; the bundled models of re-binding recall if none
            are given.
        reading: What they read.
        loading: How they are loaded.
        output: Folder.
        printing: What is printed.
    """
    import time

    from statesize.cli.study_result import print_study
    from statesize.rerun.recipe import make_recipe
    from statesize.studies.delimiters import curve_rows, dip_rows
    from statesize.studies.delimiters import delimiters as conclude
    from statesize.studies.delimiters_charts import delimiters_charts
    from statesize.studies.delimiters_dips import measure_dips
    from statesize.studies.page import write_page
    from statesize.studies.table import ResultTable

    started, left_out, given = time.perf_counter(), list[str](), reading or Reading()
    table = ResultTable.open(output, "delimiters")
    options = vars(given) | vars(loading or Loading())
    recipe = make_recipe(["study", "delimiters"], options, models=models)
    printing.hush_libraries()
    found = given.subjects(models, loading, left_out)
    windows = given.windows(found)
    with printing.bars() as bars:
        results = [
            measure_dips(
                subject.name,
                subject.load(),
                subject.corpus,
                windows,
                given.channels,
                given.seed,
                on_progress=telling(bars, subject.name),
            )
            for subject in found
        ]
    conclusion = conclude(results, given.delimiter)
    path = table.write(dip_rows(results))
    table.write(curve_rows(results), "curves.parquet")
    write_page(conclusion, delimiters_charts(results), dip_rows(results), output)
    seconds = time.perf_counter() - started
    print_study(conclusion, given.name, len(results), seconds, path, recipe, printing, left_out=left_out)
