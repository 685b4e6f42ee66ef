"""`statesize study recall`: how well language models predict what they have read, and their memory at delimiters."""

from __future__ import annotations

from pathlib import Path

from statesize.cli.options.kinds import Count
from statesize.cli.options.loading import Loading, Place
from statesize.cli.output.printing import TEXT, Printing
from statesize.cli.study.texts import Reading, crew_at


def recall(
    *models: str,
    reading: Reading | None = None,
    length: Count | None = None,
    loading: Loading | None = None,
    place: Place | None = None,
    output: Path = Path("statesize-study-recall"),
    printing: Printing = TEXT,
) -> None:
    """Measure perplexity on repeated bigrams, and how it goes with ESS and with its dip at delimiters, over models.

    OUTPUT receives table.parquet, one row a model, and study.html.

    Args:
        models: Bundled names, folders such as checkpoints of one run, or ids of the Hugging Face hub; the bundled
            models of re-binding recall if none are given.
        reading: What they read.
        length: Tokens of the sequences that are predicted; 256, or as the recall models were trained, if not given.
        loading: How they are loaded.
        place: Who measures ESS; the predictions are made by this process.
        output: Folder; the same command goes on from what is finished there.
        printing: What is printed.
    """
    import time

    from statesize.cli.study.result import print_study
    from statesize.files import only_writer
    from statesize.rerun.recipe import make_recipe
    from statesize.studies.delimiters.sequences import OBSERVED
    from statesize.studies.grid.table import ResultTable
    from statesize.studies.page.page import TABLE, write_page
    from statesize.studies.recall.charts import recall_charts
    from statesize.studies.recall.claim import ModelRecall, recall_models, recall_rows
    from statesize.studies.recall.claim import recall as conclude
    from statesize.studies.recall.score import recall_score

    started, left_out, given, place = time.perf_counter(), list[str](), reading or Reading(), place or Place()
    printing.hush_libraries()
    table = ResultTable.open(output, "recall")
    options, threads = vars(given) | vars(loading or Loading()), None if place.ray is False else place.ray_cpus
    recipe = make_recipe(["study", "recall"], options | {"length": length}, models=models, threads=threads)
    found = given.subjects(models, loading, left_out, printing)
    windows, results = given.windows(found), list[ModelRecall]()
    with only_writer(output), printing.bars() as bars, crew_at(place) as crew:
        for subject in found:
            model = subject.load()
            score = recall_score(model, subject.corpus, length or subject.length, subject.scored)
            dips = given.measure(subject, model, windows, (OBSERVED,), output, crew, bars)
            results.append(ModelRecall(subject.name, score, dips))
            table.write(recall_rows(results))
        conclusion = conclude(results)
        write_page(conclusion, recall_charts(results), recall_rows(results), output)
    seconds, more = time.perf_counter() - started, {"left_out": left_out, "models": recall_models(results)}
    print_study(conclusion, given.name, len(results), seconds, output / TABLE, recipe, printing, **more)
