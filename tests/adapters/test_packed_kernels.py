"""Kernels of flash-linear-attention over sequences that lie one behind the other, as where a mask is given."""

import pytest
import torch

from statesize.adapters.fla.call import _unpacked
from statesize.adapters.observation import ModuleStack
from statesize.errors import ModelError

SEQUENCES, LENGTH = 3, 5


def packed(*lengths, steps=1):
    bounds = steps * torch.tensor([0, *lengths]).cumsum(0)
    total, running = int(bounds[-1]), ModuleStack((), LENGTH, sequences=SEQUENCES)
    arguments = {
        "v": torch.arange(2 * total).reshape(1, total, 2),
        "g": torch.arange(total // steps)[None, :, None],
        "scale": 2.0,
        "cu_seqlens": bounds,
    }
    return _unpacked("layer", arguments, arguments["v"][..., None], running)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_each_sequence_gets_its_own_steps(steps):
    arguments, output = packed(*[LENGTH] * SEQUENCES, steps=steps)
    assert output.shape == (SEQUENCES, LENGTH * steps, 2, 1)
    assert output[:, 0, 0, 0].tolist() == [2 * LENGTH * steps * row for row in range(SEQUENCES)]
    assert torch.equal(arguments["g"].flatten(), torch.arange(SEQUENCES * LENGTH))
    assert arguments["g"].shape == (SEQUENCES, LENGTH, 1)
    assert (arguments["scale"], arguments["cu_seqlens"]) == (2.0, None)


@pytest.mark.parametrize("lengths", [(4, 6, 5), (2 * LENGTH, LENGTH), (3 * LENGTH,), (LENGTH + 1,) * 3])
def test_sequences_of_other_lengths_than_the_texts_are_refused(lengths):
    with pytest.raises(ModelError, match="packs sequences of several lengths"):
        packed(*lengths)
