"""A small language model's profile, shared by the tests of this folder."""

import pytest
import torch

from statesize.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.profiling import profile

SEQUENCES = [list(range(12)), [3, 1, 4, 1, 5, 9, 2]]


@pytest.fixture(scope="session")
def small_profile():
    config = ModelConfig(mixer="gla", vocabulary_size=16, width=8, heads=2, layers=2, key_size=3)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    return profile(model, SEQUENCES, name="tiny <gla>", tolerances=(1e-3, 1e-1), relative_tolerances=(1e-2, 1e-1))


@pytest.fixture
def checkpoint_without_tokenizer(tmp_path):
    config = ModelConfig(mixer="gla", vocabulary_size=300, width=8, heads=2, layers=1, key_size=4)
    save_checkpoint(LanguageModel(config, torch.Generator().manual_seed(0)), tmp_path / "small")
    return tmp_path / "small"
