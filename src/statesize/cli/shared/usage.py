"""What is wrong with a command as it was typed, and how to type it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin

from cyclopts import (
    App,
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Token,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from statesize.cli.app import EXAMPLES
from statesize.cli.shared.options import any_model
from statesize.io.text import meant

_SIGNS = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}
_KINDS = {int: "a whole number", float: "a number"}
_MUST = "Must be "
ALSO = " Also: "
"""What stands between refusals that are told together."""


def wrong_usage(error: CycloptsError) -> str:
    """A sentence for each kind of mistake, and which help to read."""
    chain = error.command_chain or ()
    command = " ".join(("statesize", *chain))
    argument = error.argument
    if isinstance(error, UnusedCliTokensError):
        said = f"{command} has no place for {' '.join(error.unused_tokens or ())!r}. Leave it out, or name its option; "
        said += "for several files, repeat the option."
    elif isinstance(error, MissingArgumentError) and argument is not None:
        name, unknown = argument.name, next((one for one in error.unused_tokens or () if one.startswith("--")), "")
        example = EXAMPLES.get(" ".join(chain))
        if error.keyword is not None or any(token.keyword for token in argument.tokens):
            typed = error.keyword or name
            tokens = cast("list[str]", error.root_input_tokens)
            behind = next((value for option, value in pairwise(tokens) if option == typed), "")
            hyphen = behind.startswith("-") and not behind.startswith("--")
            given = f"{behind}, which is read as an option. Write {typed}=VALUE." if hyphen else "none."
            said = f"{typed} must have a value behind it, got {given}"
        else:
            place = "" if name.startswith("-") else " before its options"
            said = f"{name} must be given to {command}{place}, got none."
            said += f" Such as: {example}." if example else ""
            said = f"{_unknown(unknown, command, argument.names)} {said}" if unknown else said
    elif isinstance(error, UnknownOptionError):
        names = [name for part in error.argument_collection if part.parse for name in part.names]
        said = _unknown(error.token.keyword or error.token.value, command, names)
    elif isinstance(error, ValidationError) and argument is not None and error.exception_message.startswith(_MUST):
        wanted = error.exception_message.removeprefix(_MUST).rstrip(".")
        for sign, word in _SIGNS.items():
            wanted = wanted.replace(sign, word)
        said = f"{_name(argument, argument.tokens[0])} must be {wanted}, got {argument.tokens[0].value}."
    elif isinstance(error, CoercionError) and argument is not None and error.token is not None:
        given, wanted = error.token.value, _wanted(error.target_type)
        said = (
            f"{_name(argument, error.token)} must be {' or '.join(wanted)}, got {given!r}. {meant(given, wanted, '')}"
        )
    else:
        said = str(error)
    return f"{said.rstrip()} See {command} --help."


def wrong_options(app: App, arguments: Sequence[str]) -> str:
    """What is wrong with the options of a command whose model is refused, but for an option that is missing."""
    try:
        with any_model():
            app.parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return "" if _is_missing(error) else wrong_usage(error)
    return ""


def _is_missing(error: CycloptsError) -> bool:
    """Whether an argument or option is missing, rather than its value or its right spelling."""
    typed = error.argument is not None and any(token.keyword for token in error.argument.tokens)
    spelt = any(one.startswith("--") for one in error.unused_tokens or ())
    return isinstance(error, MissingArgumentError) and not (error.keyword is not None or typed or spelt)


def as_typed(message: str, app: App, arguments: Sequence[str]) -> str:
    """A refusal that begins with names of options, with each as it is typed at the command line, by its first name."""
    typed = {one.partition("=")[0] for one in arguments}
    options = {
        name.replace("-", ""): part.names[0]
        for part in app.parse_commands(arguments)[1][-1].assemble_argument_collection()
        for name in part.names
        if name.startswith("--")
    }
    options.setdefault("positions", options.get("cuts", "positions"))
    if "text" in options:
        given = [options[one] for one in ("jsonl", "parquet", "dataset", "ids") if options.get(one) in typed]
        options["inputs"] = next(iter(given), options["text"])

    def typed_part(part: str) -> str:
        begins, must, rest = part.partition(" must ")
        if re.fullmatch(r"\w+((, | and )\w+)*", begins):
            begins = re.sub(r"\w+", lambda name: options.get(name[0].replace("_", ""), name[0]), begins)
        return begins + must + rest

    return ALSO.join(map(typed_part, message.split(ALSO)))


def _name(argument: Argument, token: Token) -> str:
    """An option by its first name, or an argument as the help names it."""
    return argument.name if token.keyword else argument.name.lstrip("-").upper()


def _unknown(given: str, command: str, names: Iterable[str]) -> str:
    """Says that there is no such option, and which is spelt almost so."""
    given = given.partition("=")[0]
    near = meant(given.strip("-"), {name.strip("-"): name for name in names}, "")
    return f"{given} is no option of {command}. {near}".rstrip()


def _wanted(kind: Any) -> list[str]:
    """What a value may be: its choices, or its kind in words."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    several = [one for one in get_args(kind) if one is not NoneType]
    return [name for one in several for name in _wanted(one)] or [
        _KINDS.get(kind, str(getattr(kind, "__name__", kind)))
    ]
