"""`statesize series` and `statesize length`: ESS through a training, and against the length of the context."""

from __future__ import annotations

from dataclasses import asdict
from glob import has_magic
from pathlib import Path

from statesize.cli.shared.options import (
    Count,
    Listed,
    Loading,
    LoadingMany,
    MeasureOptions,
    ModelName,
    Output,
    Workers,
    check_model,
    listed,
    whole_numbers,
)
from statesize.cli.shared.printing import REPORTING, Reporting
from statesize.cli.shared.texts import Texts, WholeTexts
from statesize.errors import InputError
from statesize.measurement.settings import CUTS, VARIANT


class PointSettings(MeasureOptions, without=VARIANT):
    """A point of a trend holds no variant."""


class LengthSettings(MeasureOptions, without=(*VARIANT, *CUTS)):
    """The lengths say where the texts are cut."""


def series(
    *checkpoints: str,
    revisions: Listed | None = None,
    log: Path | None = None,
    texts: Texts | None = None,
    measuring: PointSettings | None = None,
    loading: LoadingMany | None = None,
    workers: Workers | None = None,
    output: Output = None,
    printing: Reporting = REPORTING,
) -> None:
    """Measure how the ESS of each layer develops through the checkpoints of a training.

    Args:
        checkpoints: The folder of a training with checkpoints in it (`statesize train --keep-every`, a Trainer's output
            folder), folders of models, a pattern in quotes such as "run/checkpoint-*", or an id of the hub with
            --revisions.
        revisions: Branches, tags or commits of a model of the hub, such as step0,step1000.
        log: File with loss and accuracy by step: JSON lines, or a trainer_state.json. Default: the one beside the
            checkpoints.
        texts: What the models read.
        measuring: What is measured.
        loading: How the models are loaded.
        workers: Who measures; each process measures one checkpoint after another.
        output: Folder for finished checkpoints.
        printing: What is printed.
    """
    from statesize.lab.trends.checkpoints import find_checkpoints

    texts, measuring, workers = texts or Texts(), measuring or PointSettings(), workers or Workers()
    loading = loading or LoadingMany()
    options = {name: value for name, value in asdict(loading).items() if name != "revision"}
    printing = printing.named("series")
    settings = measuring.settings()
    chosen = tuple(listed(revisions or ()))
    for name in checkpoints:
        if not (has_magic(name) or any(Path(name).glob("*/config.json"))):
            check_model(name)
    known = find_checkpoints(checkpoints, chosen)
    cluster = workers.cluster()

    from statesize.cli.shared.printing import show_page
    from statesize.lab.trends.series import first_tokenizer, series
    from statesize.measurement.statistics import too_short
    from statesize.parallel.threads import here

    printing.hush_libraries()
    tokenizer = None if not texts.needs_tokenizer else first_tokenizer(known, options)
    read = texts.read(tokenizer, printing, None)
    if short := too_short(max(map(len, read.ids))):
        printing.say(short.strip())
    with printing.bars() as bars:
        report_progress = bars.begin("measuring checkpoints", len(known)).update
        measured = series(
            checkpoints, read.ids, revisions=chosen, tokenizer=tokenizer, log=log, output=output, loading=options,
            crew=cluster or here, on_progress=report_progress, settings=settings,
        )  # fmt: skip
    show_page(measured.page(), measured.to_dict(), printing)


def length(
    model: ModelName,
    /,
    *,
    lengths: Listed,
    trained_length: Count | None = None,
    excerpts: Count = 5,
    texts: WholeTexts | None = None,
    measuring: LengthSettings | None = None,
    loading: Loading | None = None,
    output: Output = None,
    printing: Reporting = REPORTING,
) -> None:
    """Measure how the ESS of each layer and head grows with the length of the context.

    Args:
        model: A bundled name (sa, la, gla, gated-deltanet), a folder of a model, a GGUF file, or an id of the Hugging
            Face hub.
        lengths: Tokens of the contexts, such as 64,128,256; an exponent takes three or more.
        trained_length: Tokens of the sequences that the model was trained on. No exponent is fitted beyond it. Default:
            from the model's configuration.
        excerpts: Read at most this many pieces of text, each as long as the longest context and the future together.
            Intervals and exponents take five different texts.
        texts: What the model reads. Default: all bundled documents.
        measuring: What is measured.
        loading: How the model is loaded.
        output: Folder for finished lengths.
        printing: What is printed.

    Raises:
        InputError: There are fewer than two lengths.
    """
    texts, measuring, loading = texts or WholeTexts(), measuring or LengthSettings(), loading or Loading()
    settings, chosen = measuring.settings(), whole_numbers("lengths", lengths)
    if len(set(chosen)) < 2 or min(chosen) < 1:
        raise InputError(f"lengths must be at least two different numbers above 0, got {' '.join(lengths)}.")
    printing = printing.named(f"{Path(model).name}-length")

    from statesize.cli.shared.printing import show_page
    from statesize.lab.trends.length import FUTURE, fitting_lengths, known_trained_length, length
    from statesize.measurement.statistics import FEWEST_TEXTS
    from statesize.texts.documents import vocabulary_size

    printing.hush_libraries()
    loaded = texts.load(model, loading, printing)
    ids = texts.read_whole(loaded.tokenizer, printing, vocabulary_size(loaded.model), texts.sequences)
    fitting = fitting_lengths(chosen, ids, settings.future)

    def room(context: int) -> int:
        """Tokens of a text in which a context has its future."""
        return context + (settings.future or min(context, FUTURE))

    size = min(room(fitting[-1]), max(map(len, ids)))
    if excerpts >= FEWEST_TEXTS:
        texts.tell_few(sum(len(one) >= size for one in ids), f"texts of {size:,} tokens or more", printing)
    with printing.bars() as bars:
        report_progress = bars.begin(f"measuring {loaded.name}", len(set(chosen))).update
        known = trained_length or known_trained_length(loaded.model, model)
        result = length(
            loaded.model, ids, lengths=chosen, excerpts=excerpts, trained_length=known,
            tokenizer=loaded.tokenizer, name=loaded.name, output=output, on_progress=report_progress, settings=settings,
        )  # fmt: skip
    show_page(result.page(), result.to_dict(), printing)
