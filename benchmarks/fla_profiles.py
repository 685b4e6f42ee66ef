"""Profiles of five models of flash-linear-attention with their pages: `python benchmarks/fla_profiles.py FOLDER`.

The models are tiny, have random weights, and run over fla's torch references: pages show what is measured of each kind,
and nothing about a trained model. Each has its page in FOLDER afterwards.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from oracles.fla_torch import use_references

import statesize as ss

TOKENS = 192
MODELS: dict[str, dict[str, Any]] = {
    "GLA": {"num_heads": 2},
    "GSA": {"num_heads": 2, "num_slots": 16},
    "GatedDeltaNet": {"num_heads": 2, "head_dim": 32, "expand_v": 1},
    "KDA": {"num_heads": 2, "head_dim": 32, "expand_v": 1},
    "Mamba2": {"num_heads": 4, "head_dim": 32, "state_size": 32},
}


def profiled(name: str, settings: dict[str, Any]) -> ss.Profile:
    """A profile of one model on random tokens."""
    models: Any = import_module("fla.models")
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 50, "fuse_cross_entropy": False}
    torch.manual_seed(0)
    model = getattr(models, f"{name}ForCausalLM")(getattr(models, f"{name}Config")(**shape, **settings)).eval()
    tokens = torch.randint(0, 50, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    return ss.profile(model, tokens, name=name)


def main() -> None:
    """Profile all models and write their pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder: Path = parser.parse_args().folder
    warnings.filterwarnings("ignore")
    use_references()
    folder.mkdir(parents=True, exist_ok=True)
    for name, settings in MODELS.items():
        print(profiled(name, settings).to_html(folder / f"{name}.html"), flush=True)


if __name__ == "__main__":
    main()
