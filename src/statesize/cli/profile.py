"""`statesize profile`: one model over one text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from statesize.errors import FileError, InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from statesize.mixers.model import LanguageModel


def profile(
    model: str,
    /,
    *,
    text: Path,
    output: Path | None = None,
    html: Path | None = None,
    max_tokens: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 512,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Profile a model over the beginning of a text and print a table.

    Args:
        model: A bundled name (sa, la, wla, gla) or a folder with config.json and model.safetensors.
        text: A UTF-8 text file; blank lines separate documents, which are joined by the end-of-document token.
        output: Folder for the profile, to be read by `statesize report` and `Profile.load`.
        html: File for a report.
        max_tokens: How many tokens of the text are read, as one sequence.
        json: Print one JSON document instead of the table.
    """
    from statesize import profiling
    from statesize.cli.document import print_json, profile_document
    from statesize.cli.progress import ProfileProgress, say
    from statesize.cli.table import print_summary
    from statesize.profiling.store import check_destination
    from statesize.report import check_report_path, write_report

    if output is not None:
        check_destination(output)
    if html is not None:
        check_report_path(html)
    network, tokenizer = _load(model)
    ids, total = _read(text, tokenizer, max_tokens)
    if total > len(ids):
        say(f"Reading the first {len(ids)} of {total} tokens; --max-tokens takes more.")
    name = model if not Path(model).is_dir() else Path(model).absolute().name
    with ProfileProgress() as progress:
        result = profiling.profile(
            network, ids, tokenizer=tokenizer, name=name, on_progress=progress.model(name, sequences=1)
        )
    if output is not None:
        result.save(output)
        say(f"Profile: {output}")
    if html is not None:
        write_report([result], html)
        say(f"Report: {html}")
    if json:
        print_json(profile_document(result, output))
    else:
        print_summary([result])


def _load(model: str) -> tuple[LanguageModel, Tokenizer]:
    from statesize import zoo
    from statesize.mixers import load_checkpoint

    if model in zoo.names():
        return zoo.load(model)
    folder = Path(model)
    if not folder.is_dir():
        raise InputError(
            f"there is no model {model!r}: it is neither a bundled name ({', '.join(zoo.names())}) nor a folder. "
            "Models of the Hugging Face hub cannot be profiled yet."
        )
    return load_checkpoint(folder), _tokenizer(folder)


def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    # `statesize train` keeps the tokenizer in the folder of the run and the best weights in one inside it.
    for path in (folder / "tokenizer.json", folder.absolute().parent / "tokenizer.json"):
        if path.is_file():
            try:
                return Tokenizer.from_file(str(path))  # pyright: ignore[reportUnknownMemberType]
            except Exception as error:  # the class that tokenizers raises has no narrower name
                raise FileError(f"{path} is damaged ({error}); copy it again from where the model was made.") from error
    raise FileError(f"{folder} has no tokenizer.json, nor has the folder above it; put the model's tokenizer there.")


def _read(text: Path, tokenizer: Tokenizer, most: int) -> tuple[Tensor, int]:
    from statesize.tasks.corpus import read_documents
    from statesize.tasks.text import encode

    ids = encode(read_documents(text), tokenizer)
    return ids[:most], len(ids)
