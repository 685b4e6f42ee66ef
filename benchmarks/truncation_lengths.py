"""Does ESS suffice in longer texts? `python -m benchmarks.truncation_lengths FILE MODEL [...]`.

MODEL is what `statesize truncate` takes. The file gets one entry per model and length, and those that are in it are not
run again. Each length has five pieces of Python's prose, cut in the middle. No claim was fixed. SmolLM2 takes a
minute of one core at 256 tokens, three minutes at 512, and several times as long at each doubling.
"""

from __future__ import annotations

import sys
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.cases import document
from benchmarks.recorded import finish, prose
from statesize.models.digests import tensors_sha256, tokens_sha256
from statesize.models.load import LoadedModel, load_model
from statesize.texts.inputs import begun_excerpts
from statesize.truncation import truncate

DOCUMENTS, LENGTHS = 5, (256, 512, 1024, 2048)


def main(path: Path, models: list[str]) -> None:
    """Run what is not there, and write the document after each length."""
    loaded = cache(load_model)

    def run(name: str, tokens: int) -> dict[str, Any]:
        return one_length(loaded(name), tokens, DOCUMENTS)

    wanted = (
        ({"file": Path(name).stem, "tokens": tokens}, partial(run, name, tokens))
        for name in models
        for tokens in LENGTHS
    )
    finish(path, wanted, lambda rows: document(rows, "transformers"))


def one_length(loaded: LoadedModel, tokens: int, documents: int) -> dict[str, Any]:
    """The test of a model over pieces of so many tokens."""
    start = time.process_time()
    pieces = begun_excerpts([prose(loaded.tokenizer)], tokens, documents, loaded.tokenizer)
    result = truncate(loaded.model, pieces, documents=documents, tokens=tokens, name=loaded.name, on_progress=print)
    return {
        "weights": tensors_sha256(loaded.model.state_dict()),
        "texts": tokens_sha256(pieces),
        "seconds": round(time.process_time() - start, 1),
        **result.to_dict(),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
