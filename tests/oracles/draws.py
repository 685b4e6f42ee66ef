"""Random numbers and small language models that are the same each time."""

import torch

from statesize.lab.mixers import LanguageModel, ModelConfig


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def language_model(mixer: str = "gla", seed: int = 0, **shape: object) -> LanguageModel:
    """A model of the lab with random weights, in eval mode."""
    return LanguageModel(ModelConfig(mixer, **shape), torch.Generator().manual_seed(seed)).eval()
