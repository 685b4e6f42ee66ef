"""`statesize study delimiters`: what delimiters do to the memory of language models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from statesize.cli.profile import Loading

_Flag = Parameter(negative="")
_Count = Parameter(validator=validators.Number(gte=1))
_NOTED = 3


def delimiters(
    *models: str,
    text: Path | None = None,
    delimiter: str = "eos",
    documents: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 200,
    window: Annotated[int | None, _Count] = None,
    channels: Annotated[int, _Count] = 16,
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    loading: Loading | None = None,
    output: Path = Path("statesize-study-delimiters"),
    json: Annotated[bool, _Flag] = False,
) -> None:
    """Measure how ESS dips at the delimiters of a text, and at the same places of controls without them.

    OUTPUT receives table.parquet (depths of models, layers and heads), curves.parquet and study.html.

    Args:
        models: Bundled names, folders, or ids of the Hugging Face hub.
        text: UTF-8 text file, of which blank lines separate documents, or a .jsonl file of objects with a field "text";
            the bundled documents if not given.
        delimiter: What stands between documents: eos; turn, the end of a turn of chat; stop or newline, which cut the
            documents into sentences or lines; or the text of any token.
        documents: How many documents are read at most.
        window: Tokens of past and future that ESS is measured over; if not given, as many as fit into half of the
            documents, at most 32.
        channels: Heads or channels of each layer that are measured at most.
        seed: Of the controls and of the intervals.
        loading: How models are loaded.
        output: Folder.
        json: Print one JSON document instead of the conclusion.
    """
    import time

    from statesize.cli.document import SCHEMA, print_json
    from statesize.cli.progress import say
    from statesize.studies.conclusion import known
    from statesize.studies.delimiters import curve_rows, dip_rows, measure_dips
    from statesize.studies.delimiters import delimiters as conclude
    from statesize.studies.delimiters_charts import delimiters_charts
    from statesize.studies.delimiters_sequences import choose_windows
    from statesize.studies.delimiters_subjects import subjects
    from statesize.studies.page import write_page
    from statesize.studies.table import ResultTable

    started, left_out = time.perf_counter(), list[str]()
    chosen = models or ("sa", "la", "wla", "gla")
    table = ResultTable.open(output, "delimiters")
    found = subjects(chosen, text, delimiter, documents, asdict(loading or Loading()), left_out.append)
    tell_left_out(left_out)
    windows = min((choose_windows(subject.corpus, window) for subject in found), key=lambda one: one.past)
    results = [
        measure_dips(
            subject.name, subject.load(), subject.corpus, windows, channels, seed, on_progress=_telling(subject.name)
        )
        for subject in found
    ]
    conclusion = conclude(results, delimiter)
    path = table.write(dip_rows(results))
    table.write(curve_rows(results), "curves.parquet")
    write_page(conclusion, delimiters_charts(results), output / "study.html")
    say(f"Table: {path}")
    say(f"Report: {output / 'study.html'}")
    if json:
        print_json(
            {
                "schema": SCHEMA,
                "study": "delimiters",
                "preset": "bundled" if text is None else text.name,
                "claim": conclusion.claim,
                "holds": conclusion.holds,
                "figures": known(conclusion.figures),
                "runs": len(results),
                "seconds": time.perf_counter() - started,
                "table": str(path),
                "left_out": left_out,
            }
        )
    else:
        print("\n".join(conclusion.lines()))


def tell_left_out(problems: list[str]) -> None:
    """Say on stderr how many lines of a file were left out, and which.

    Args:
        problems: File, line and problem of each.
    """
    from statesize.cli.progress import say

    if problems:
        more = f", and {len(problems) - _NOTED} more" if len(problems) > _NOTED else ""
        say(f"Left out {len(problems)}: {'; '.join(problems[:_NOTED])}{more}.")


def _telling(model: str) -> Callable[[str, int, int], None]:
    from statesize.cli.progress import say

    def tell(condition: str, done: int, total: int) -> None:
        if done == total:
            say(f"{model}, {condition}: {total} sequences")

    return tell
