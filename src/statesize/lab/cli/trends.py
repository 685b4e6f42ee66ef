"""`statesize lab series` and `statesize lab length`: ESS through a training, and against the length of the context."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from statesize.cli.shared.options import (
    AllOrSome,
    Count,
    LayerNames,
    Listed,
    Loading,
    LoadingMany,
    ModelName,
    Output,
    listed,
    whole_numbers,
)
from statesize.cli.shared.printing import REPORTING, Reporting, hush_libraries
from statesize.cli.shared.texts import Texts, WholeTexts
from statesize.io.progress import Bar
from statesize.measurement.settings import Settings


def series(
    *checkpoints: str,
    revisions: Listed | None = None,
    layers: LayerNames = None,
    channels: AllOrSome = None,
    positions: AllOrSome = None,
    texts: Texts | None = None,
    loading: LoadingMany | None = None,
    output: Output = None,
    printing: Reporting = REPORTING,
) -> None:
    """Measure how the ESS of each layer develops through the checkpoints of a training.

    Args:
        checkpoints: The folder of a training with checkpoints in it (`statesize lab train --keep-every`, a Trainer's
            output folder), several models, or one id of the hub with --revisions.
        revisions: Branches, tags or commits of a model of the hub, such as step0,step1000.
        layers: Names or indices of layers. Default: all.
        channels: Heads or channels of each layer: all, or how many, drawn at random. Default: as time allows.
        positions: Cuts of each text: all, or how many. Default: 32.
        texts: What the models read.
        loading: How the models are loaded.
        output: Folder for the profile of each checkpoint.
        printing: What is printed.
    """
    from statesize.lab.trends.series import find_checkpoints, series

    texts, settings = texts or Texts(), Settings(layers=layers, channels=channels, positions=positions)
    options = {name: value for name, value in asdict(loading or LoadingMany()).items() if name != "revision"}
    printing, chosen = printing.named("series"), tuple(listed(revisions or ()))
    found = find_checkpoints(checkpoints, chosen)

    from statesize.cli.shared.printing import show_page
    from statesize.models.load import load_tokenizer
    from statesize.profiling.profile_run import profile_bar

    hush_libraries()
    tokenizer = load_tokenizer(found[0].model, revision=found[0].revision)[0] if texts.needs_tokenizer else None
    ids, _ = texts.read(tokenizer, None)
    with Bar("profiling checkpoints") as bar:
        measured = series(
            checkpoints, ids, revisions=chosen, tokenizer=tokenizer, output=output, loading=options, settings=settings,
            on_progress=profile_bar(bar, len(found) * len(ids)),
        )  # fmt: skip
    show_page(measured.page(), measured.to_dict(), printing)


def length(
    model: ModelName,
    /,
    *,
    lengths: Listed,
    trained_length: Count | None = None,
    excerpts: Count = 5,
    future: Count | None = None,
    layers: LayerNames = None,
    channels: AllOrSome = None,
    texts: WholeTexts | None = None,
    loading: Loading | None = None,
    output: Output = None,
    printing: Reporting = REPORTING,
) -> None:
    """Measure how the ESS of each layer grows with the length of the context.

    Args:
        model: A bundled name (sa, la, gla, gated-deltanet), a folder of a model, a GGUF file, or an id of the Hugging
            Face hub.
        lengths: Tokens of the contexts, such as 64,128,256; an exponent takes three or more.
        trained_length: Tokens of the sequences that the model was trained on. No exponent is fitted beyond it. Default:
            from the model's configuration.
        excerpts: Read at most this many pieces of text, each as long as the longest context and the future together.
            Intervals and exponents take five different texts.
        future: Tokens after the cut. Default: as many as the longest context within the trained length, 256 at most.
        layers: Names or indices of layers. Default: all.
        channels: Heads or channels of each layer: all, or how many, drawn at random. Default: as time allows.
        texts: What the model reads. Default: all bundled documents.
        loading: How the model is loaded.
        output: Folder for the profile at each length.
        printing: What is printed.
    """
    texts, chosen = texts or WholeTexts(), whole_numbers("lengths", lengths)
    settings = Settings(layers=layers, channels=channels, future=future)
    printing = printing.named(f"{Path(model).name}-length")

    from statesize.cli.shared.printing import show_page
    from statesize.lab.trends.length import known_trained_length, length
    from statesize.profiling.profile_run import profile_bar
    from statesize.texts.documents import vocabulary_size

    hush_libraries()
    loaded = texts.load(model, loading or Loading())
    ids = texts.read_whole(loaded.tokenizer, vocabulary_size(loaded.model), texts.sequences)
    with Bar(f"profiling {loaded.name}") as bar:
        measured = length(
            loaded.model, ids, lengths=chosen, excerpts=excerpts, tokenizer=loaded.tokenizer, name=loaded.name,
            trained_length=trained_length or known_trained_length(loaded.model, model), output=output,
            settings=settings, on_progress=profile_bar(bar, len(set(chosen)) * excerpts),
        )  # fmt: skip
    show_page(measured.page(), measured.to_dict(), printing)
