"""Small published models of these architectures, and the time that one command without options takes for each."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.language_models import Recipe, predictions
from statesize.io.files import replace_file
from statesize.texts.inputs import LENGTH, SEQUENCES

_SMOLLM: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
_MAMBA_2: dict[str, Any] = {"hidden_size": 768, "state_size": 128, "num_heads": 24, "head_dim": 64, "n_groups": 1}
_MAMBA_2 |= {"tie_word_embeddings": True}
PUBLISHED = (
    Recipe("gpt2", "gpt2", 12, 50257, {}, torch.float32, None),
    Recipe("HuggingFaceTB/SmolLM2-135M", "llama", 30, 49152, _SMOLLM, torch.bfloat16, None),
    Recipe("state-spaces/mamba-130m-hf", "mamba", 24, 50280, {"hidden_size": 768}, torch.float32, None),
    Recipe("AntonV/mamba2-130m-hf", "mamba2", 24, 50288, _MAMBA_2, torch.float32, None),
)


def published(place: Path) -> list[dict[str, Any]]:
    """A row a model, with the time of all the bundled texts; kept in a file."""
    if not place.exists():
        rows = [asdict(row) | {"seconds": SEQUENCES * row.seconds} for row in predictions(PUBLISHED, LENGTH)]
        replace_file(place, json.dumps(rows, indent=1).encode())
    return json.loads(place.read_text(encoding="utf-8"))
