"""`statesize compress`: a trained model with smaller states."""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from statesize.cli.shared.options import (
    MOST,
    OFTEN,
    SEQUENCES,
    Flag,
    MaxTokens,
    model_for,
)
from statesize.cli.shared.printing import TEXT, Printing
from statesize.cli.shared.texts import BUNDLED, check_all
from statesize.measurement.settings import FEWEST_PARTS

# Some texts show which states are read, some choose how many stay, and the rest is held out.
_PARTS = validators.Number(gte=FEWEST_PARTS, lte=MOST)


def compress(
    model: Annotated[str, model_for("compress")],
    /,
    *,
    output: Annotated[Path, Parameter(group=OFTEN)],
    text: Annotated[list[Path] | None, Parameter(group=OFTEN, negative="", metavar="PATH")] = None,
    state: str = "50%",
    int8: Flag = False,
    finetune: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    free_basis: Flag = False,
    sequences: Annotated[int | None, Parameter(name=SEQUENCES, validator=_PARTS)] = None,
    max_tokens: MaxTokens | None = None,
    frontier: Path | None = None,
    printing: Printing = TEXT,
) -> None:
    """Cut the states of a trained model, and measure on held-out texts what that costs.

    No training is needed: 40 % of the texts show which parts of the states are read, 20 % choose how many states
    each head keeps, the rest is held out. OUTPUT receives the smaller model, which all commands read.

    Args:
        model: A bundled name (la, gla, gated-deltanet), a folder of a model that statesize trained with la, wla, gla,
            gla-s6, s6, deltanet or gated-deltanet, or a folder or id of the Hugging Face hub of a Mamba or Mamba-2.
        output: New or empty folder for the smaller model.
        text: Text like that the model will read: a UTF-8 file, one text each, or JSONL or Parquet with a text in each
            row. Repeat for several. One or two texts are cut into pieces, and give no intervals. It takes 3 texts, 50
            for a verdict, and about 40 tokens for each number of a head's state. Default: the 24 bundled documents, too
            few for a verdict.
        state: What to keep of the states: a share such as 50%, or the mean size of a head, such as 16.
        int8: Also round the states to int8 after each token; not for Mamba.
        finetune: Steps that the cut model, and the uncut one for comparison, train on the calibration text; not for
            Mamba.
        free_basis: For Mamba-2, keep the best combinations of its numbers instead of the best numbers. It stays nearer
            to the whole model, but only statesize reads OUTPUT.
        sequences: How many of the texts are read at most.
        max_tokens: How many tokens of each text are read. Default: all.
        frontier: HTML file for a page that draws loss against bytes, of cuts to a quarter, a half and three quarters by
            each way, in float and int8, with the ESS of the heads beside them.
        printing: What is printed.

    Raises:
        FileError: The text is not there, or the folder is in use.
    """
    from statesize.check import share_of
    from statesize.errors import InputError
    from statesize.io.files import check_new_folder, check_report_path

    check_all(
        partial(check_new_folder, output),
        partial(share_of, state, None),
        *([] if frontier is None else [partial(check_report_path, frontier, "frontier")]),
    )

    from statesize.models.load import load_model, load_tokenizer
    from statesize.reduction.compress import FEWEST_DOCUMENTS, LENGTH, reducible_for_checks, split_text
    from statesize.reduction.compress import compress as run
    from statesize.reduction.reducible import ReductionRequest
    from statesize.reduction.windows import TOKENS_NEEDED, different_documents, some_documents
    from statesize.texts import bundled
    from statesize.texts.documents import read_file

    printing.hush_libraries()
    if text is None:
        printing.say(BUNDLED)
    read = bundled.documents() if text is None else chain.from_iterable(read_file(one, whole=True) for one in text)
    every = [document for document in read if isinstance(document, str)]
    request = ReductionRequest(state, int8, finetune, free_basis)
    uncut, different = check_all(partial(reducible_for_checks, model), partial(different_documents, every))
    tokenizer = load_tokenizer(model)

    def read_some() -> list[str]:
        """Those that are asked for; refuse too little text."""
        chosen = some_documents(every, tokenizer, sequences, max_tokens)
        if uncut is None:
            return chosen
        try:
            split_text(uncut, chosen, tokenizer, LENGTH)
        except InputError as error:
            limits = {"sequences": sequences, "max_tokens": max_tokens}
            given = " and ".join(name for name, limit in limits.items() if limit is not None)
            raise InputError(f"{given} must leave enough of the texts: {error}" if given else str(error)) from error
        return chosen

    supported = [] if uncut is None else [partial(uncut.kept, request)]
    *_, documents = check_all(*supported, read_some)
    there = len({number for _, number in different})
    if (measured := min(there, sequences or there)) < FEWEST_DOCUMENTS:
        more = "more of these by --sequences, " if there >= FEWEST_DOCUMENTS else ""
        bundle = f", and {there} are all that are bundled" if text is None else ""
        printing.say(
            f"Whether it is safe takes {FEWEST_DOCUMENTS} texts, got {measured}{bundle}: {more}--text FILE.jsonl with "
            f"one in each row, or many --text, and about {TOKENS_NEEDED} tokens for each number of a head's state."
        )

    from statesize.cli.shared.table import show
    from statesize.reduction.frontier import frontier as points_of
    from statesize.reduction.frontier import page
    from statesize.report.result_page import PageTable, ResultPage

    with printing.step(f"loading {model}"):
        loaded = load_model(model, as_stored=True)
    with printing.bars() as bars:
        result = run(
            loaded.model,
            documents,
            state,
            tokenizer=loaded.tokenizer,
            int8=int8,
            fine_tune=finetune,
            free_basis=free_basis,
            on_progress=bars.begin(f"cutting the states of {loaded.name}").update,
        )
    result.save(output)
    if frontier is not None:
        with printing.bars() as bars:
            points, heads = points_of(
                loaded.model,
                documents,
                loaded.tokenizer,  # pyright: ignore[reportArgumentType]
                on_progress=bars.begin(f"measuring the frontier of {loaded.name}").update,
            )
        page(loaded.name, points, heads).write(frontier)
        printing.say(f"Report: {frontier}")
    rows = [*result.facts, ("saved", str(output))]
    caption = "In brackets: intervals of 95 %." if result.difference.ends else ""
    table = PageTable("", ("figure", "found"), rows, caption)
    show(ResultPage("Smaller states", result.finding(loaded.name), (), [table]), result.to_dict(output), printing)
    read_again = [part for path in text or () for part in ("--text", path)]
    printing.next("profile", output, *read_again, "--open", why="what the smaller states carry")
