"""Writes the figures into the pages of the documentation: `python -m tools.figures.pages`.

A figure in a sentence stands in `<span data-figure="NAME">…</span>`, a table between `<!-- figure NAME -->` and
`<!-- end of figure -->` on lines of their own, so that a page reads the same on a repository and as a site. A name is
that of a function and a key of what it returns, or, with `|FORMAT` at its end, of a record and the keys to a value.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tools.figures.figures import figures
from tools.figures.on_record import value

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"
INLINE = re.compile(r'<span data-figure="([^"]+)">(.*?)</span>', re.DOTALL)
LINK = re.compile(r"\]\(([^):]+)\)")
BLOCK = re.compile(r"<!-- figure ([\w.]+) -->\n(.*?)\n<!-- end of figure -->", re.DOTALL)


def names(page: str) -> list[str]:
    """The names of the figures on a page."""
    return [found[1] for form in (INLINE, BLOCK) for found in form.finditer(page)]


def filled(page: str, known: Mapping[str, str]) -> str:
    """The text of a page with its figures as they are now; an unknown one is a KeyError."""

    def inline(found: re.Match[str]) -> str:
        name = found[1]
        return f'<span data-figure="{name}">{value(name) if "|" in name else known[name]}</span>'

    page = INLINE.sub(inline, page)
    return BLOCK.sub(lambda found: f"<!-- figure {found[1]} -->\n\n{known[found[1]]}\n\n<!-- end of figure -->", page)


def linked_from(page: Path, known: Mapping[str, str]) -> dict[str, str]:
    """The figures as a page shows them: their links are written as for a page in docs/."""
    return {
        name: LINK.sub(lambda found: f"]({os.path.relpath(DOCS / found[1], page.parent)})", text)
        for name, text in known.items()
    }


def written() -> dict[Path, str]:
    """Pages that hold figures, by file, as they should be."""
    known = {f"{part}.{name}": text for part, named in figures().items() for name, text in named.items()}
    pages = {path: path.read_text("utf-8") for path in (README, *sorted(DOCS.rglob("*.md")))}
    return {path: filled(page, linked_from(path, known)) for path, page in pages.items() if names(page)}


def behind() -> dict[Path, str]:
    """The files that are not as they should be, with the text that they should have."""
    pages = written().items()
    return {path: text for path, text in pages if not path.exists() or path.read_text("utf-8") != text}


def main() -> None:
    """Write the files that are behind."""
    for path, text in behind().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(DOCS.parent)}\n")


if __name__ == "__main__":
    main()
