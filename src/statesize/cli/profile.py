"""`statesize profile`: one model over texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from statesize.cli.shared.options import (
    OFTEN,
    AllOrSome,
    Flag,
    LayerNames,
    Loading,
    Output,
    Workers,
    check_model,
)
from statesize.cli.shared.printing import Printing, command_line, open_page, print_json, print_notes, print_table
from statesize.cli.shared.texts import Texts
from statesize.io.text import byte_count, counted
from statesize.measurement.settings import MEMORY

if TYPE_CHECKING:
    from statesize.measurement.settings import Settings
    from statesize.models.load import LoadedModel
    from statesize.results.place import Marker


@Parameter(name="*")
@dataclass(frozen=True)
class Measuring:
    """What is measured.

    Attributes:
        prefix: UTF-8 text that comes before each text, such as a system prompt; without --positions, ESS is measured at
            its end.
        layers: Names or indices of layers. Default: all.
        channels: Heads or channels of each layer: all, or how many, drawn at random. Default: as time allows.
        positions: Cuts of each text: all, or how many. Default: 32.
        memory: Bytes that measuring may hold at once, such as 4GB.
        ray: Spread the sequences over processes on Ray. ADDRESS is that of a cluster; without one, Ray starts here.
    """

    prefix: Path | None = None
    layers: LayerNames = None
    channels: AllOrSome = None
    positions: AllOrSome = None
    memory: Annotated[int | str, Parameter(show_default=byte_count)] = MEMORY
    ray: Annotated[bool | str, Parameter(metavar="[ADDRESS]", negative="", show_default=False)] = False

    def settings(self) -> Settings:
        """The settings, checked."""
        from statesize.measurement.settings import Settings

        asked = ("layers", "channels", "positions", "memory")
        return Settings(**{name: getattr(self, name) for name in asked})


def profile(
    model: str,
    /,
    *,
    texts: Texts | None = None,
    measuring: Measuring | None = None,
    loading: Loading | None = None,
    output: Output = None,
    open_: Annotated[Flag, Parameter(name="--open", group=OFTEN)] = False,
    json: Flag = False,
) -> None:
    """Measure how much of its memory a model uses, and keep the numbers and a page of charts in a folder.

    The folder of a profile, or one with several in it, is shown again, and nothing is measured. The same command goes
    on after a crash or an interrupt.

    Args:
        model: A bundled name (sa, la, gla, gated-deltanet), a folder of a model, a GGUF file, an id of the Hugging
            Face hub, or the folder of a profile.
        texts: What the model reads.
        measuring: What is measured.
        loading: How the model is loaded.
        output: Folder for the profile and its page. Default: MODEL-profile.
        open_: Show the page in the browser.
        json: Print the result as one JSON document.

    Raises:
        InputError: Options contradict each other.
    """
    from statesize.errors import InputError
    from statesize.models.plugins import is_brought
    from statesize.results.place import MARKER, PAGE, check_destination, profiles_in, read_marker

    place, printing = Path(model), Printing(json)
    stored = [place] if (place / MARKER).is_file() else profiles_in(place)
    if stored and not is_brought(model) and not (place / "config.json").exists():
        if (texts, measuring, loading, output) != (None,) * 4:
            raise InputError(f"{model} must stand alone, got options beside a profile. Give --open and --json alone.")
        show([read_marker(folder) for folder in stored], stored, printing)
        if open_:
            _open_stored(stored, printing)
        return
    name = place.stem if place.suffix == ".gguf" else place.absolute().name
    folder = output or Path(f"{name}-profile")
    check_model(model, "profile")
    check_destination(folder, "output")
    _measure(_Asked(model, texts or Texts(), measuring or Measuring(), loading or Loading()), folder, printing)
    show([read_marker(folder)], [folder], printing)
    if open_:
        open_page(folder / PAGE, printing.say)


@dataclass(frozen=True)
class _Asked:
    """What is to be measured."""

    model: str
    texts: Texts
    measuring: Measuring
    loading: Loading


def _measure(asked: _Asked, folder: Path, printing: Printing) -> None:
    """Measure a model into a folder, and draw its page there."""
    model, texts, measuring, loading = asked.model, asked.texts, asked.measuring, asked.loading
    settings = measuring.settings()
    cluster = Workers(ray=measuring.ray).cluster(gpus=float(loading.device.startswith("cuda")))

    from statesize.models.load import load_model
    from statesize.profiling.profile_run import profile_bar
    from statesize.profiling.run import run_profile
    from statesize.results.place import PAGE

    printing.hush_libraries()
    loaded, vocabulary, context = _facts(asked, printing, in_process=cluster is None)
    tokenizer, name = loaded.tokenizer, loaded.name
    if tokenizer is None:
        printing.say("The model has no tokenizer that can be loaded: tokens are shown by their ids.")
    read = texts.read(tokenizer, printing, vocabulary)
    source: dict[str, Any] = {**loaded.source, "command": command_line()}
    if read.chats:
        source["chat_template"] = f"applied to {read.chats} of {counted(len(read.ids), 'text')}"
    ids = read.ids
    if measuring.prefix is not None:
        ids, settings = _behind_prefix(measuring.prefix, tokenizer, ids, settings, printing)
    if context is not None and max(map(len, ids)) > context:
        source["context"] = f"texts of {max(map(len, ids)):,} tokens pass the model's longest context of {context:,}"
    measured: Any = loaded.model
    if cluster is not None:
        # The processes need not have the folder in which this one works.
        path = str(Path(model).absolute()) if Path(model).is_dir() else model
        measured = partial(load_model, path, **asdict(loading), needs_tokenizer=texts.needs_tokenizer)
    with printing.bars() as bars:
        result = run_profile(
            measured, ids, settings, tokenizer=tokenizer, output=folder, name=name, source=source, cluster=cluster,
            on_progress=profile_bar(bars, name, len(ids)),
        )  # fmt: skip
    with printing.step("drawing the page"):
        result.to_html(folder / PAGE)


def _facts(
    asked: _Asked, printing: Printing, *, in_process: bool
) -> tuple[LoadedModel, int | None, int | None]:  # fmt: skip
    """The model with its vocabulary and longest context; only its facts where other processes load it."""
    model, texts, loading = asked.model, asked.texts, asked.loading
    from statesize.models.load import LoadedModel, load_model_facts
    from statesize.texts.documents import configured_context, vocabulary_size

    if in_process:
        loaded = texts.load(model, loading, printing)
        context = configured_context(getattr(loaded.model, "config", None))
        return loaded, vocabulary_size(loaded.model), context
    tokenizer, vocabulary, context = load_model_facts(
        model,
        revision=loading.revision,
        trust_remote_code=loading.trust_remote_code,
        needs_tokenizer=texts.needs_tokenizer,
    )
    return LoadedModel(None, tokenizer, Path(model).name, {}), vocabulary, context  # pyright: ignore[reportArgumentType]


def _behind_prefix(
    path: Path, tokenizer: Any, ids: list[Any], settings: Settings, printing: Printing
) -> tuple[list[Any], Settings]:
    """The sequences after a prefix, measured at its end unless positions are requested."""
    from statesize.errors import InputError
    from statesize.texts.rows import read_whole
    from statesize.texts.tokens import after_prefix

    if tokenizer is None:
        raise InputError("prefix must come with a tokenizer, got none. Put the prefix's ids before yours.")
    text = read_whole(path)
    planned = [after_prefix(tokenizer, text, behind) for behind in ids]
    border = planned[0][1]
    printing.say(f"The prefix ends before token {border}.")
    settings = replace(settings, positions=(border,)) if settings.by_default else settings
    return [both for both, _ in planned], settings


def show(markers: Sequence[Marker], folders: Sequence[Path], printing: Printing) -> None:
    """Print what is known of profiles, from their documents alone, and where they lie."""
    from statesize.report.table import layer_table, legend_lines, short_names
    from statesize.results.place import PAGE

    documents: list[dict[str, Any]] = [
        {**marker.document, "folder": str(at)} for marker, at in zip(markers, folders, strict=True)
    ]
    if printing.json:
        print_json(documents[0] if len(documents) == 1 else {"profiles": documents})
        return
    for number, (document, folder) in enumerate(zip(documents, folders, strict=True)):
        print_notes([""] * bool(number) + [document["headline"], ""])
        print_table(layer_table(document))
        layers = [row["layer"] for row in (*document["mixers"], *document["lost"])]
        source: dict[str, Any] = document["source"] or {}
        told = ("weights", "unused_weights", "tokenizer", "context")
        notes = [*legend_lines(document["limits"], short_names(layers)), document["run"], document["truncation"]]
        print_notes([*filter(None, notes), *(f"{name}: {source[name]}" for name in told if name in source)])
        printing.say(f"Profile: {folder}" + (f", page: {folder / PAGE}" if (folder / PAGE).exists() else ""))


def _open_stored(folders: Sequence[Path], printing: Printing) -> None:
    """Show the page of profiles, which is drawn if none is there."""
    from statesize.results.place import PAGE

    page = folders[0] / PAGE if len(folders) == 1 else folders[0].parent / PAGE
    if not page.exists():
        from statesize.profiling import Profile
        from statesize.report.page import write_report

        with printing.step("drawing the page"):
            write_report([Profile.load(folder) for folder in folders], page)
    open_page(page, printing.say)
