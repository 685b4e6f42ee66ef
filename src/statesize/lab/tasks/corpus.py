"""A corpus for language models, in two parts: the prose that ships inside CPython, or a user's text file."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from statesize.check import require_path
from statesize.errors import FileError
from statesize.texts.documents import read_file
from statesize.texts.rows import BLANK_LINES

HELD_OUT_FRACTION = 0.05
DOCUMENT_CHARACTERS = 400
SHORTEST_DOCUMENT = 200
REPEATED_SHARE = 0.3
_SKIPPED = {"__pycache__", "_bundled", "dist-packages", "idle_test", "pydoc_data", "site-packages", "test", "tests"}


@dataclass(frozen=True)
class Corpus:
    """Documents split into a train and a held-out part.

    Attributes:
        train: the documents to train on.
        held_out: the documents to evaluate on.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of both parts, in order, as 64 hexadecimal digits."""
        return sha256_of(sha256_of(part) for part in (self.train, self.held_out))


def sha256_of(documents: Iterable[str]) -> str:
    """Hash of a sequence of documents: SHA-256 over each one's length in bytes and its UTF-8 bytes."""
    digest = hashlib.sha256()
    for document in documents:
        data = document.encode()
        digest.update(f"{len(data)}\n".encode() + data)
    return digest.hexdigest()


def split(documents: Iterable[str]) -> Corpus:
    """Split documents into train (about 95 %) and held-out (about 5 %) by a hash of each document."""
    # A document is on the same side wherever it occurs, so equal documents never cross the split and corpora that share
    # documents (the prose of two Python versions) split them alike. With two different documents or more both parts
    # hold something; a single one goes to train.
    documents = tuple(documents)
    hashes = {document: hashlib.sha256(document.encode()).digest()[:6] for document in documents}
    fraction = {document: int.from_bytes(digest, "big") / 2**48 for document, digest in hashes.items()}
    limit = 0.0
    if len(fraction) > 1:
        # A small corpus may fall on one side as a whole: then the nearest document crosses.
        ordered = sorted(fraction.values())
        limit = min(max(HELD_OUT_FRACTION, ordered[1]), ordered[-1])
    return Corpus(
        train=tuple(document for document in documents if fraction[document] >= limit),
        held_out=tuple(document for document in documents if fraction[document] < limit),
    )


def python_prose() -> Corpus:
    """The prose inside the running CPython: `pydoc_data.topics` and the docstrings of the standard library.

    Modules are read from their source files in sorted order and not imported; test packages and installed packages
    are left out. Every topic and docstring is cut at blank lines into documents of about 400 characters or a little
    more. Docstrings under 200 characters are left out, and so is a document whose runs of five words have for 30 % or
    more appeared in documents before it: the library repeats itself, and a held-out text should not stand in the
    train part. The text differs between Python versions: compare `Corpus.sha256`.

    Returns:
        The documents, split by `split`; a Python without these sources gives a FileError.
    """
    seen: set[tuple[str, ...]] = set()
    documents: list[str] = []
    for text in _python_texts():
        documents += [document for document in _gather(_paragraphs(text)) if not _is_repeat(document, seen)]
    return split(documents)


def read_text(path: str | Path) -> Corpus:
    """A file as a corpus: the documents of UTF-8 text, or the rows of a JSONL or Parquet file, then `split`.

    Args:
        path: the file.

    Returns:
        The two parts; nothing is held out of a file with a single document.

    Raises:
        FileError: the file cannot be read, or a row is a chat or holds no text.
    """
    documents = tuple(read_file(require_path("path", path)))
    texts = [document for document in documents if isinstance(document, str)]
    if len(texts) < len(documents):
        raise FileError(f"{path} must hold texts, got chats. Write them out as texts first.")
    return split(texts)


def _python_texts() -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(root.rglob("*.py"), key=lambda file: file.relative_to(root).as_posix())
    files = [file for file in files if _SKIPPED.isdisjoint(file.relative_to(root).parts)]
    try:
        topics = cast("dict[str, str]", importlib.import_module("pydoc_data.topics").topics)
    except ImportError:
        topics = dict[str, str]()
    if not files or not topics:
        raise FileError(
            "Python must have pydoc_data.topics and the sources of its standard library, got one without. Use a full "
            "installation, or statesize.lab.zoo.documents()."
        )
    for name in sorted(topics):
        yield topics[name]
    for file in files:
        yield from (text for text in _docstrings(file) if len(text) >= SHORTEST_DOCUMENT)


def _docstrings(file: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        # Invalid escapes in someone else's docstrings are not the caller's concern.
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            # Templates and files of other Python versions: nothing that this Python would call a docstring.
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring is not None:
                # Escapes such as \ud800 make characters that UTF-8 cannot hold.
                yield inspect.cleandoc(docstring).encode(errors="replace").decode()


def _paragraphs(text: str) -> list[str]:
    lines = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
    return [paragraph for paragraph in BLANK_LINES.split(lines) if paragraph.strip()]


def _is_repeat(document: str, seen: set[tuple[str, ...]]) -> bool:
    words = document.split()
    runs = set(zip(*(words[start:] for start in range(5)), strict=False)) or {tuple(words)}
    repeated = len(runs & seen) >= REPEATED_SHARE * len(runs)
    if not repeated:
        seen |= runs
    return repeated


def _gather(paragraphs: Iterable[str]) -> list[str]:
    documents: list[str] = []
    current = ""
    for paragraph in paragraphs:
        current = f"{current}\n\n{paragraph}" if current else paragraph
        if len(current) >= DOCUMENT_CHARACTERS:
            documents.append(current)
            current = ""
    if len(current) >= SHORTEST_DOCUMENT:
        documents.append(current)
    elif current and documents:
        documents[-1] += f"\n\n{current}"
    return documents
