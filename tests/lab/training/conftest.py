"""A task so small that a model learns it in seconds: repeat the token of two positions ago."""

from dataclasses import dataclass

import pytest
import torch

from statesize.lab.mixers import LanguageModel, ModelConfig


@dataclass(frozen=True)
class Echo:
    """Targets are the input two positions before; the first two are ignored, and those at the token 0.

    Each row is drawn on its own, and rows differ in how many targets they have.
    """

    vocabulary_size: int = 7
    length: int = 12
    seed: int = 0

    def batch(self, batch_size, generator):
        rows = [torch.randint(self.vocabulary_size, (self.length,), generator=generator) for _ in range(batch_size)]
        input_ids = torch.stack(rows)
        targets = torch.full_like(input_ids, -100)
        targets[:, 2:] = input_ids[:, :-2]
        targets[input_ids == 0] = -100
        return input_ids, targets

    def sample(self, batch_size, generator):
        return self.batch(batch_size, torch.Generator().manual_seed(self.seed) if self.seed else generator)

    def held_out(self, batch_size):
        generator = torch.Generator().manual_seed(99)
        for _ in range(2):
            yield self.batch(batch_size, generator)

    def report(self, mean_nats, accuracy):
        return {"errors_percent": 100 * (1 - accuracy)}


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def make_model():
    def make(mixer="gla", seed=0, **changes):
        shape = {"vocabulary_size": 7, "width": 16, "heads": 2, "layers": 1, "key_size": 4}
        return LanguageModel(ModelConfig(mixer, **(shape | changes)), torch.Generator().manual_seed(seed))

    return make
