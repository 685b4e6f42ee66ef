"""`statesize profile`: one model over texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

from cyclopts import Parameter

from statesize.cli.shared.options import (
    OFTEN,
    AllOrSome,
    Flag,
    LayerNames,
    Loading,
    Output,
    Ray,
    check_model,
    ray_cluster,
)
from statesize.cli.shared.printing import (
    command_line,
    hush_libraries,
    print_json,
    print_notes,
    print_table,
    show_in_browser,
)
from statesize.cli.shared.texts import Texts
from statesize.errors import InputError
from statesize.io.progress import Bar, say
from statesize.io.text import byte_count, counted
from statesize.measurement.settings import MEMORY, Settings
from statesize.models.plugins import is_brought
from statesize.results.place import PAGE, check_destination, profiles_in, read_marker


@Parameter(name="*")
@dataclass(frozen=True)
class Measuring:
    """What is measured.

    Attributes:
        layers: Names or indices of layers. Default: all.
        channels: Heads or channels of each layer: all, or how many, drawn at random. Default: as time allows.
        positions: Cuts of each text: all, or how many. Default: 32.
        memory: Bytes that measuring may hold at once, such as 4GB.
        ray: Spread the sequences over processes on Ray. ADDRESS is that of a cluster; without one, Ray starts here.
    """

    layers: LayerNames = None
    channels: AllOrSome = None
    positions: AllOrSome = None
    memory: Annotated[int | str, Parameter(show_default=byte_count)] = MEMORY
    ray: Ray = False


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
    place = Path(model)
    folders = profiles_in(place)
    if not folders or is_brought(model) or (place / "config.json").exists():
        name = place.stem if place.suffix == ".gguf" else place.absolute().name
        folders = [output or Path(f"{name}-profile")]
        check_model(model, "profile")
        check_destination(folders[0], "output")
        _measure(model, (texts or Texts(), measuring or Measuring(), loading or Loading()), folders[0])
    elif (texts, measuring, loading, output) != (None,) * 4:
        raise InputError(f"{model} must stand alone, got options beside a profile. Give --open and --json alone.")
    show(folders, json)
    if open_:
        _open(folders)


def _measure(model: str, options: tuple[Texts, Measuring, Loading], folder: Path) -> None:
    """Measure a model into a folder, and draw its page there."""
    texts, measuring, loading = options
    settings = Settings(measuring.layers, measuring.channels, measuring.positions, memory=cast("int", measuring.memory))
    cluster = ray_cluster(measuring.ray, gpus=float(loading.device.startswith("cuda")))

    from statesize.models.load import LoadedModel, load_model, load_tokenizer
    from statesize.profiling.profile_run import profile_bar
    from statesize.profiling.run import run_profile
    from statesize.texts.documents import context_length, vocabulary_size

    hush_libraries()
    measured: Any
    config: Any
    if cluster is None:
        loaded = texts.load(model, loading)
        measured = config = loaded.model
    else:
        # The processes load the model, and need not have the folder in which this one works.
        path = str(Path(model).absolute()) if Path(model).is_dir() else model
        measured = partial(load_model, path, **asdict(loading), needs_tokenizer=texts.needs_tokenizer)
        tokenizer, config = load_tokenizer(
            model,
            revision=loading.revision,
            trust_remote_code=loading.trust_remote_code,
            needs_tokenizer=texts.needs_tokenizer,
        )
        loaded = LoadedModel(Path(model).name, measured, tokenizer, {})
    tokenizer, name = loaded.tokenizer, loaded.name
    if tokenizer is None:
        say("The model has no tokenizer that can be loaded: tokens are shown by their ids.")
    ids, chats = texts.read(tokenizer, vocabulary_size(config))
    source: dict[str, Any] = {**loaded.source, "command": command_line()}
    if chats:
        source["chat_template"] = f"applied to {chats} of {counted(len(ids), 'text')}"
    context = context_length(config)
    if context is not None and max(map(len, ids)) > context:
        source["context"] = f"texts of {max(map(len, ids)):,} tokens pass the model's longest context of {context:,}"
    with Bar(f"profiling {name}") as bar:
        result = run_profile(
            measured, ids, settings, tokenizer=tokenizer, output=folder, name=name, source=source, cluster=cluster,
            on_progress=profile_bar(bar, len(ids)),
        )  # fmt: skip
    with Bar("drawing the page"):
        result.to_html(folder / PAGE)


def show(folders: Sequence[Path], as_json: bool) -> None:
    """Print what is known of profiles, from their documents alone, and where they lie."""
    from statesize.report.table import layer_table, legend_lines, short_names

    documents: list[dict[str, Any]] = [read_marker(folder).document | {"folder": str(folder)} for folder in folders]
    if as_json:
        print_json(documents[0] if len(documents) == 1 else {"profiles": documents})
        return
    if len(folders) > 1:
        print_notes([f"{len(folders)} profiles: {', '.join(map(str, folders))}."])
    for document, folder in zip(documents, folders, strict=True):
        print_notes([""] * (len(folders) > 1) + [document["headline"], ""])
        print_table(layer_table(document))
        layers = [row["layer"] for row in (*document["mixers"], *document["lost"])]
        source: dict[str, Any] = document["source"] or {}
        notes = [*legend_lines(document["limits"], short_names(layers)), document["run"], document["truncation"]]
        notes += [f"{name}: {source[name]}" for name in _OF_SOURCE if name in source]
        print_notes([note for note in notes if note])
        say(f"Profile: {folder}" + (f", page: {folder / PAGE}" if (folder / PAGE).exists() else ""))
    say("Next: statesize truncate MODEL (how much memory is enough?), statesize cache MODEL (what may a cache lose?)")


_OF_SOURCE = ("weights", "unused_weights", "tokenizer", "context")


def _open(folders: Sequence[Path]) -> None:
    """Show the page of a profile, which is drawn if none is there, or draw that of several."""
    page = folders[0] / PAGE if len(folders) == 1 else folders[0].parent / PAGE
    # An earlier page of several may lack some.
    if len(folders) > 1 or not page.exists():
        from statesize.profiling import Profile
        from statesize.report.page import page as report_page

        with Bar("drawing the page"):
            report_page([Profile.load(folder) for folder in folders]).write(page)
    show_in_browser(page)
