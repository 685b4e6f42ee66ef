"""Makes the bundled documents and the tokenizer of the bundled models."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from statesize.io.files import replace_file
from statesize.lab.tasks.corpus import Corpus, python_prose, sha256_of
from statesize.lab.tasks.text import train_tokenizer

DOCUMENTS_FORMAT = 1


def write_bundle(folder: str | os.PathLike[str]) -> Corpus:
    """Write `tokenizer.json` and `documents.json` from the prose of the running Python.

    The tokenizer is trained on the train part; the documents are the held-out part, with the Python version and the
    hashes of the part and of the whole corpus. This is how the bundled files were made:

        python -c "from tools.text_bundle import write_bundle; write_bundle('src/statesize/texts/data')"

    Args:
        folder: where to; files that are there are replaced whole.

    Returns:
        The corpus.
    """
    corpus = python_prose()
    values = {
        "format": DOCUMENTS_FORMAT,
        "source": "held-out part of statesize.lab.tasks.python_prose()",
        "python": platform.python_version(),
        "sha256": sha256_of(corpus.held_out),
        "corpus_sha256": corpus.sha256,
        "documents": corpus.held_out,
    }
    text = json.dumps(values, ensure_ascii=False, indent=1) + "\n"
    replace_file(Path(folder) / "documents.json", text.encode())
    replace_file(Path(folder) / "tokenizer.json", (train_tokenizer(corpus.train).to_str() + "\n").encode())
    return corpus
