"""`statesize study recall`: how well language models predict what they have read, and their memory at delimiters."""

from __future__ import annotations

from pathlib import Path

from statesize.cli.options import Count
from statesize.cli.printing import TEXT, Printing
from statesize.cli.profile import Loading
from statesize.cli.study_texts import Reading, telling


def recall(
    *models: str,
    reading: Reading | None = None,
    length: Count | None = None,
    loading: Loading | None = None,
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
        output: Folder.
        printing: What is printed.
    """
    import time

    from statesize.cli.study_result import print_study
    from statesize.rerun.recipe import make_recipe
    from statesize.studies.delimiters_dips import measure_dips
    from statesize.studies.delimiters_sequences import OBSERVED
    from statesize.studies.page import write_page
    from statesize.studies.recall import ModelRecall, recall_models, recall_rows
    from statesize.studies.recall import recall as conclude
    from statesize.studies.recall_charts import recall_charts
    from statesize.studies.recall_score import recall_score
    from statesize.studies.table import ResultTable

    started, left_out, given = time.perf_counter(), list[str](), reading or Reading()
    table = ResultTable.open(output, "recall")
    options = vars(given) | vars(loading or Loading()) | {"length": length}
    recipe = make_recipe(["study", "recall"], options, models=models)
    printing.hush_libraries()
    found = given.subjects(models, loading, left_out)
    windows = given.windows(found)
    results: list[ModelRecall] = []
    with printing.bars() as bars:
        for subject in found:
            model, corpus, tell = subject.load(), subject.corpus, telling(bars, subject.name)
            score = recall_score(model, corpus, length or subject.length, subject.scored)
            channels, seed = given.channels, given.seed
            dips = measure_dips(subject.name, model, corpus, windows, channels, seed, (OBSERVED,), tell)
            results.append(ModelRecall(subject.name, score, dips))
    conclusion = conclude(results)
    path = table.write(recall_rows(results))
    write_page(conclusion, recall_charts(results), recall_rows(results), output)
    seconds, models_json = time.perf_counter() - started, recall_models(results)
    print_study(
        conclusion, given.name, len(results), seconds, path, recipe, printing, left_out=left_out, models=models_json
    )
