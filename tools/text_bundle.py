"""Makes the text that the bundled models are trained on, and the documents that the package bundles, from its sources.

    python -m tools.text_bundle PEPS DOCS OUTPUT

PEPS is a checkout of github.com/python/peps, DOCS a folder of CPython's documentation in reStructuredText (Doc in its
repository, or `_sources` of a built one). OUTPUT receives corpus.jsonl, which `statesize lab train text` reads, and
documents.json, the beginnings of documents that it holds out.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from statesize.io.files import replace_file
from statesize.lab.tasks.text import split

DOCUMENTS_FORMAT = 1
LEAST, MOST = 3_000, 250_000
"""Characters of a document that is taken: shorter ones have little context, longer ones are mostly tables."""
BUNDLED, EXCERPT = 24, 8_000
"""Held-out documents that are bundled, those of the plainest prose, and characters of each, in whole paragraphs."""
_LEFT_OUT = ("whatsnew/changelog", "license", "contents", "distutils/", "c-api/stable")


def peps(folder: Path) -> Iterator[str]:
    """The bodies of the PEPs that say that they are in the public domain, in order of their numbers."""
    for file in sorted(folder.rglob("pep-[0-9][0-9][0-9][0-9].*")):
        text = file.read_text(encoding="utf-8")
        if file.suffix in {".rst", ".txt"} and "public domain" in " ".join(text.lower().split()):
            yield text.partition("\n\n")[2]


def pages(folder: Path) -> Iterator[str]:
    """The pages of CPython's documentation in order of their names, but for lists of changes and licences."""
    for file in sorted([*folder.rglob("*.rst"), *folder.rglob("*.rst.txt")]):
        if not file.relative_to(folder).as_posix().startswith(_LEFT_OUT):
            yield file.read_text(encoding="utf-8")


def excerpt(document: str) -> str:
    """Whole paragraphs from the first one on that is a sentence."""
    paragraphs = document.split("\n\n")
    while not paragraphs[0][:1].isalpha() or not paragraphs[0].rstrip().endswith((".", ":")):
        del paragraphs[0]
    return "\n\n".join(paragraphs)[: EXCERPT + 1].rpartition("\n\n")[0].strip("\n")


def share_of_signs(text: str) -> float:
    """How much of a text is neither letters, white space, nor what ends and parts sentences: much of a list or code."""
    return sum(not (sign.isalpha() or sign.isspace() or sign in ".,;") for sign in text) / len(text)


def sha256_of(documents: Iterable[str]) -> str:
    """Hash of a sequence of documents: SHA-256 over each one's length in bytes and its UTF-8 bytes."""
    digest = hashlib.sha256()
    for document in documents:
        data = document.encode()
        digest.update(f"{len(data)}\n".encode() + data)
    return digest.hexdigest()


def main(sources: tuple[Path, Path], output: Path) -> None:
    """Write both files."""
    found = [text for read, folder in zip((peps, pages), sources, strict=True) for text in read(folder)]
    documents = [text for text in found if LEAST <= len(text) <= MOST]
    corpus = split(documents)
    output.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
    replace_file(output / "corpus.jsonl", lines.encode())
    beginnings = [excerpt(text) for text in corpus.held_out if len(text) >= EXCERPT + 2_000]
    held_out = sorted(beginnings, key=share_of_signs)[:BUNDLED]
    values = {
        "format": DOCUMENTS_FORMAT,
        "source": "beginnings of the held-out documents of what tools.text_bundle makes",
        "sha256": sha256_of(held_out),
        "corpus_sha256": sha256_of(map(sha256_of, (corpus.train, corpus.held_out))),
        "documents": held_out,
    }
    replace_file(output / "documents.json", (json.dumps(values, ensure_ascii=False, indent=1) + "\n").encode())
    print(
        f"documents: {len(corpus.train)} to train on, {len(corpus.held_out)} held out, {len(held_out)} of these bundled"
    )


if __name__ == "__main__":
    main((Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]))
