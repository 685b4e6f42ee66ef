"""What every command's output must be like: a finding first, and at last what to do next."""

import re
import shlex
from pathlib import Path

GLOSSARY = Path(__file__).parents[2] / "docs" / "appendix" / "glossary.md"

# One, with a noun in the plural.
ONE_OF_MANY = re.compile(
    r"(?<![\d.,])1 (rows|layers|tokens|documents|texts|sequences|models|runs|mixers|heads|channels|pieces|passkeys|"
    r"products|checkpoints|units|families|kinds|numbers)\b"
)

# What is carried on average over cuts says nothing beside the most that one cut allows.
_AVERAGED, _CEILING = r"\b(averaged?|averages|on average|means? over)\b", r"\b(ceilings?|at most|that it holds)\b"
MEAN_AGAINST_CEILING = re.compile(rf"{_AVERAGED}[^.]*{_CEILING}|{_CEILING}[^.]*{_AVERAGED}", re.IGNORECASE)


def terms():
    """The words that the glossary explains."""
    rows = [line.split("|")[1] for line in GLOSSARY.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {word.strip(" `$*") for row in rows[1:] for word in row.split(",")}


def next_command(captured):
    """The arguments of what a command says to do next, after a first line with a number and a term of the glossary."""
    first = captured.out.splitlines()[0]
    assert not ONE_OF_MANY.search(captured.out + captured.err), captured
    assert re.search(r"\d", first), first
    assert not MEAN_AGAINST_CEILING.search(first), first
    # In the plural too.
    assert any(re.search(rf"\b{re.escape(term)}s?\b", first, re.IGNORECASE) for term in terms()), first
    assert re.match(r"next \([\w;,:. -]+\): statesize ", captured.err.splitlines()[-1])
    program, *arguments = shlex.split(captured.err.splitlines()[-1].partition("): ")[2])
    assert program == "statesize"
    return arguments
