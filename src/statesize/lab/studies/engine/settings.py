"""The TOML of a study, which is read and never executed: its tables, and the product of the lists in them."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeAlias, cast

from statesize.check import refuse, require_kind
from statesize.errors import InputError
from statesize.lab.studies.verdicts import Claim

Document: TypeAlias = dict[str, Any]


_SMOKE = """\
[model]
width = 16
heads = 2
layers = 1
mlp_factor = 2
convolution_size = 2
decay_bias = 0.0

[training]
steps = 10
batch_size = 8
rate = 6e-3
weight_decay = 0.0
seed = [0, 1]

[measuring]
every = 10
sequences = 4

"""


def smoke(tasks: str) -> str:
    """The preset smoke of a study, from its tables [[task]]: seconds, in which nothing is learned."""
    return _SMOKE + tasks


def parse_document(text: str, study: str) -> Document:
    """The tables of a text in TOML; an InputError if it is none, or is for another study than this one."""
    require_kind("text", text, str, "the text of a TOML file")
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"The settings are no valid TOML: {error}.") from error
    if document.get("study", study) != study:
        raise InputError(f"The settings are for the study {document['study']!r}, and this is {study!r}.")
    return document


def claim_of(document: Document) -> Claim | None:
    """The claim that was fixed before the runs, or None."""
    if "claim" not in document:
        return None
    values = table(document, "claim", Claim.__dataclass_fields__)
    if missing := sorted(Claim.__dataclass_fields__.keys() - values.keys()):
        raise InputError(f"[claim] must have all of its keys, got none for {', '.join(missing)}. Add them.")
    return Claim(**values)


def table(document: Document, name: str, fields: Collection[str]) -> Document:
    """A table whose keys are among these fields, empty if it is missing."""
    found: object = document.get(name, {})
    if not isinstance(found, dict):
        refuse(name, "a table", found, f"Write it as [{name}].")
    values = cast("Document", found)
    refuse_unknown(values, fields, f"[{name}]")
    return values


def refuse_unknown(values: Document, known: Collection[str], title: str) -> None:
    """Refuse keys that do not exist."""
    for name in values:
        if name not in known:
            keys = ", ".join(sorted(known))
            raise InputError(f"{title} has the key {name!r}, which does not exist. The keys are {keys}.")


def product(values: Mapping[str, Any]) -> Iterator[Document]:
    """The product of all values that are lists."""
    for chosen in itertools.product(*map(as_list, values.values())):
        yield dict(zip(values, chosen, strict=True))


def as_list(value: Any) -> list[Any]:
    """A list, or the only value of one."""
    return cast("list[Any]", value) if isinstance(value, list) else [value]
