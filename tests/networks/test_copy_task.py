"""Recurrences that learn to copy: the more must be kept, the larger the ESS of the whole network."""

import pytest
import torch
from networks.nonlinear import Language, language
from torch import Tensor, nn

from statesize.networks.network import network_ess

SYMBOLS, BLANK, GO = 4, 4, 5


def copy_task(kept: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Symbols, of which the first `kept` are to be repeated after a mark; inputs and targets, (count, 9)."""
    drawn = torch.randint(SYMBOLS, (count, 4), generator=generator)
    rest = torch.full((count, 4), BLANK)
    inputs = torch.cat([drawn, torch.full((count, 1), GO), rest], 1)
    targets = torch.full((count, 9), -100)
    targets[:, 5 : 5 + kept] = drawn[:, :kept]
    return inputs, targets


def trained(kind: str, kept: int) -> tuple[Language, float]:
    """A model that repeats so many symbols, and how often it is right."""
    generator = torch.Generator().manual_seed(kept)
    model = language(kind, 32, 6, seed=1)
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=0.1)
    for _ in range(1500):
        inputs, targets = copy_task(kept, 64, generator)
        loss = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    inputs, targets = copy_task(kept, 500, generator)
    right = (model(inputs).argmax(-1) == targets)[targets >= 0]
    return model, float(right.float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gru", "slstm"])
def test_ess_grows_with_what_must_be_kept(kind: str) -> None:
    sizes = []
    for kept in (1, 2, 4):
        model, accuracy = trained(kind, kept)
        assert accuracy > 0.98
        texts = copy_task(kept, 5, torch.Generator().manual_seed(0))[0]
        found = [network_ess(model, text[None], [5], end="logits", method="dense").entropy.item() for text in texts]
        sizes.append(sum(found) / len(found))
    print(kind, sizes)
    assert sizes == sorted(sizes)
