"""Does ESS suffice in longer texts? `python -m benchmarks.truncation_lengths docs/truncation_lengths.json MODEL [...]`.

MODEL is what `statesize truncate` takes. The file gets one entry a model and length, and those that are in it are not
run again. Each length has five pieces of the bundled prose, cut in the middle. No claim was fixed. SmolLM2 takes a
minute of one core at 256 tokens, three minutes at 512, and several times as long at each doubling.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from statesize.benchmarks.cases import document
from statesize.io.files import replace_file
from statesize.laboratory import bundled_documents
from statesize.models.load import LoadedModel, load_model, tensors_sha256, tokens_sha256
from statesize.texts.inputs import begun_excerpts
from statesize.texts.tokens import encode
from statesize.truncation import truncate

DOCUMENTS, LENGTHS = 5, (256, 512, 1024, 2048)


def main(path: Path, models: list[str]) -> None:
    """Run what is not there, and write the document after each length."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    for name in models:
        loaded, known = load_model(name), {(row["file"], row["tokens"]) for row in rows}
        for tokens in LENGTHS:
            if (Path(name).stem, tokens) not in known:
                rows.append({"file": Path(name).stem, "tokens": tokens, **one_length(loaded, tokens, DOCUMENTS)})
                replace_file(path, (json.dumps(document(rows, "transformers")) + "\n").encode())


def one_length(loaded: LoadedModel, tokens: int, documents: int) -> dict[str, Any]:
    """The test of a model over pieces of so many tokens."""
    start = time.process_time()
    ids = torch.tensor(encode(loaded.tokenizer, "\n\n".join(bundled_documents()[1])))  # pyright: ignore[reportArgumentType]
    pieces = begun_excerpts([ids], tokens, documents, loaded.tokenizer)
    result = truncate(loaded.model, pieces, documents=documents, tokens=tokens, name=loaded.name, on_progress=print)
    return {
        "weights": tensors_sha256(loaded.model.state_dict()),
        "texts": tokens_sha256(pieces),
        "seconds": round(time.process_time() - start, 1),
        **result.to_dict(),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
