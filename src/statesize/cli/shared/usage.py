"""What is wrong with a command as it was typed, and how to type it."""

from __future__ import annotations

from cyclopts import CycloptsError, MissingArgumentError, UnusedCliTokensError

from statesize.cli.app import EXAMPLES


def wrong_usage(error: CycloptsError) -> str:
    """A sentence for each kind of mistake, and which help to read."""
    chain = error.command_chain or ()
    command = " ".join(("statesize", *chain))
    if isinstance(error, UnusedCliTokensError):
        said = (
            f"{command} must end before {' '.join(error.unused_tokens or ())!r}, which it has no place for. An option "
        )
        said += "of several files is repeated."
    elif isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        if error.keyword is not None or any(token.keyword for token in error.argument.tokens):
            said = f"{error.keyword or name} must have a value behind it, got none."
        else:
            place = "" if name.startswith("-") else " before its options"
            said = f"{name} must be given to {command}{place}, got none."
        example = EXAMPLES.get(" ".join(chain))
        said += f" Such as: {example}." if example else ""
    else:
        said = str(error)
    return f"{said} See {command} --help."
