"""`statesize profile`: one model over texts."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from statesize.cli.shared.options import (
    Flag,
    Loading,
    LoadingPieces,
    MeasureOptions,
    Output,
    Workers,
    model_for,
)
from statesize.cli.shared.printing import REPORTING, Printing, Reporting
from statesize.cli.shared.texts import PieceTexts, Sequences, Texts
from statesize.io.text import counted

if TYPE_CHECKING:
    from statesize.measurement.settings import Settings
    from statesize.profiling import Profile
    from statesize.texts.tokens import AnyTokenizer


_TOLERANCE = 0.01


class EverySetting(MeasureOptions):
    """All that can be written at the command line."""


def profile(
    model: Annotated[str, model_for("profile")],
    /,
    *,
    texts: Texts | None = None,
    measuring: EverySetting | None = None,
    prefix: Path | None = None,
    loading: Loading | None = None,
    workers: Workers | None = None,
    output: Output = None,
    tolerance: Annotated[float, Parameter(validator=validators.Number(gt=0, lt=1))] = _TOLERANCE,
    metric: Literal["entropy", "relative_count"] = "entropy",
    wide: Flag = False,
    printing: Reporting = REPORTING,
) -> None:
    """Measure how much of its memory a model uses: any Hugging Face model, a folder, or a bundled one (gla).

    The folder of a profile is shown again, in the table and with --html on a page, and nothing is measured.

    Without a text of yours it reads bundled documents. With --output, what is finished is kept while it runs: the same
    command goes on after a crash or an interrupt.

    Args:
        model: A bundled name (sa, la, gla, gated-deltanet), a folder of a model, a GGUF file, an id of the Hugging
            Face hub, or the folder of a profile.
        texts: What the model reads.
        measuring: What is measured.
        prefix: UTF-8 text that comes before each text, such as a system prompt. Without --positions, ESS is
            measured at its end: what it carries into the text.
        loading: How the model is loaded.
        workers: Who measures.
        output: Folder for the profile, to be read by this command and `Profile.load`.
        tolerance: Count singular values above this fraction of the largest (0.01 = 1 %).
        metric: The ESS that the table shows: entropy needs no tolerance; the other is the count above --tolerance.
        wide: Print all columns.
        printing: What is printed.

    Raises:
        InputError: Options contradict each other.
    """
    from statesize.errors import InputError
    from statesize.models.plugins import is_brought
    from statesize.results.place import KEPT, MARKER, check_destination, written_at

    printing = printing.named(Path(model).name)
    if (Path(model) / MARKER).is_file() and not is_brought(model):
        asked = (texts, measuring, prefix, loading, workers, output)
        if asked != (None,) * len(asked) or tolerance != _TOLERANCE:
            raise InputError(
                f"{model} is a profile, which is shown as it was measured; leave out all but --html, --open, --metric, "
                "--wide, --json and --quiet."
            )
        from statesize.cli.shared.printing import read_profiles

        (result,) = read_profiles([Path(model)], printing)
        _show(result, Path(model), metric, printing, wide=wide)
        return
    texts, loading, measuring = texts or Texts(), loading or Loading(), measuring or EverySetting()
    workers = workers or Workers()
    if output is not None:
        check_destination(output, "output")
    settings = measuring.settings()
    texts.check()
    cluster = workers.cluster(gpus=float(loading.device.startswith("cuda")))

    from statesize.cli.shared.provenance import called_again, command_line
    from statesize.io.progress import duration
    from statesize.models.load import load_model, load_model_facts
    from statesize.profiling.profile_run import profile_bar
    from statesize.profiling.run import run_profile
    from statesize.texts.documents import configured_context, vocabulary_size
    from statesize.texts.rows import read_whole

    before = None if prefix is None else read_whole(prefix)
    printing.hush_libraries()
    loaded = None
    if cluster is None:
        loaded = texts.load(model, loading, printing)
        measured, name, tokenizer = loaded.model, loaded.name, loaded.tokenizer
        vocabulary, context = vocabulary_size(loaded.model), configured_context(getattr(loaded.model, "config", None))
    else:
        # The processes need not have the folder in which this one works.
        place, name = str(Path(model).absolute()) if Path(model).is_dir() else model, None
        measured = partial(load_model, place, **asdict(loading), needs_tokenizer=texts.ids is None)
        with printing.step(f"reading what {Path(model).name} says of itself, and its tokenizer"):
            tokenizer, vocabulary, context = load_model_facts(
                model,
                revision=loading.revision,
                trust_remote_code=loading.trust_remote_code,
                needs_tokenizer=texts.ids is None,
            )
    if tokenizer is None:
        printing.say("The model has no tokenizer that can be loaded: tokens are shown by their ids.")
    read = texts.read(tokenizer, printing, vocabulary)
    templated = {"chat_template": f"applied to {read.chats} of {counted(len(read.ids), 'text')}"} if read.chats else {}
    source = {**(loaded.source if loaded else {}), **templated, "command": command_line()}
    # Kept for those who see the page or the folder: what tells whether so much suffices, of texts enough for it.
    how = LoadingPieces(device=loading.device, trust_remote_code=loading.trust_remote_code)
    pieces = PieceTexts.of(texts.enough(len(read.ids)))
    source["test"] = shlex.join(["statesize", "truncate", model, *pieces.options(how)])
    read, settings = _read_settings(before, tokenizer, read, settings, tolerance, printing)
    if (longest := max(map(len, read.ids))) > (context or longest):
        source["context"] = f"texts of {longest:,} tokens pass the longest context that the model names, of {context:,}"
    if output is None and printing.html is None and not printing.json and source.get("kind") != "bundled":
        printing.say("This is printed and not kept: --output FOLDER keeps it, --html FILE draws it.")
    written = None if output is None else written_at(output)
    with printing.bars() as bars:
        result = run_profile(
            measured,
            read.ids,
            settings,
            tokenizer=tokenizer,
            output=output,
            name=name,
            source=source,
            cluster=cluster,
            on_progress=profile_bar(bars, name or model, len(read.ids)),
        )
    if output is not None:
        printing.say(f"Profile: {output}" + (f", {KEPT}" if written and written == written_at(output) else ""))
    _show(result, output, metric, printing, wide=wide)
    if output is None:
        folder = f"{(name or model).rpartition('/')[2]}-profile"
        again = f"measures it again, about {duration(max(result.attributes['seconds'], 1))} after loading, and keeps it"
        printing.next(*called_again("--output", folder), why=again)


def _show(
    result: Profile,
    folder: Path | None,
    metric: Literal["entropy", "relative_count"],
    printing: Reporting,
    *,
    wide: bool,
) -> None:
    """Print a profile that lies in a folder, or in none, write its page, and say what to do with the folder."""
    from statesize.cli.shared.summary import summary
    from statesize.cli.shared.table import show
    from statesize.report import write_report

    if printing.html is not None:
        with printing.step("drawing the report"):
            write_report([result], printing.html)
    document = result.to_dict() | {"result": None if folder is None else str(folder)}
    show(summary(result, metric, wide=wide), document, printing)
    printing.tell_report()
    if folder is not None and printing.html is None:
        printing.next("profile", folder, "--open", why="charts of every layer and head")
    elif folder is not None:
        printing.next("profile", folder, "--wide", why="all layers and columns")


def _read_settings(
    prefix: str | None,
    tokenizer: AnyTokenizer | None,
    read: Sequences,
    settings: Settings,
    tolerance: float,
    printing: Printing,
) -> tuple[Sequences, Settings]:
    """The sequences after a prefix, measured at its end unless positions are requested; first at the tolerance."""
    from statesize.errors import InputError
    from statesize.texts.tokens import after_prefix

    if prefix is not None:
        if tokenizer is None:
            raise InputError("prefix must come with a tokenizer, got none. Put the prefix's ids before yours in --ids.")
        planned = [after_prefix(tokenizer, prefix, ids) for ids in read.ids]
        border = planned[0][1]
        printing.say(f"The prefix ends before token {border}.")
        read = replace(read, ids=[ids for ids, _ in planned])
        settings = replace(settings, positions=(border,)) if settings.by_default else settings
    return read, settings.for_texts(max(map(len, read.ids)), tolerance)
