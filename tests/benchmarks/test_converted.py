"""Recurrences of models on record: what they run is what their operators say."""

import pytest
import torch

from benchmarks.models.deepfilternet import FADING, running_means
from benchmarks.models.rwkv7 import Memory, Shift
from benchmarks.models.typeseg import Scan

LENGTH = 9


def entering(width, count):
    g = torch.Generator().manual_seed(0)
    parts = [torch.rand(2, LENGTH, width, generator=g, dtype=torch.float64) for _ in range(count)]
    parts[-2] = torch.nn.functional.normalize(parts[-2], dim=-1)
    return torch.cat(parts, -1)


@pytest.mark.parametrize("length", [1, LENGTH])
def test_the_memory_of_rwkv7_is_its_operator(length):
    given = entering(4, 6)[:, :length]
    memory = Memory(4)
    mixed = memory.operator(given).dense() @ memory.values(given)
    torch.testing.assert_close(memory.mixed_values(given), mixed)
    torch.testing.assert_close(memory(given), mixed[:, 0])


def test_the_scan_of_typeseg_is_its_operator():
    g = torch.Generator().manual_seed(1)
    given = torch.rand(2, LENGTH, 3 + 3 + 2 + 2, generator=g, dtype=torch.float64)
    scan = Scan(3, 2).double()
    T = scan.operator(given).dense()
    torch.testing.assert_close(scan(given), (T @ given[..., :3].mT[..., None])[..., 0].mT)


def test_a_token_shift_is_its_operator():
    hidden = torch.rand(2, LENGTH, 3, dtype=torch.float64)
    T = Shift().operator(hidden).dense()
    torch.testing.assert_close(Shift()(hidden), (T @ hidden.mT[..., None])[..., 0].mT)


def test_a_running_mean_fades():
    frames = torch.tensor([[1.0], [0.0], [2.0]])
    means = [FADING * 4 + (1 - FADING) * 1]
    means += [FADING * means[0]]
    means += [FADING * means[1] + (1 - FADING) * 2]
    torch.testing.assert_close(running_means(frames, torch.tensor([4.0]))[:, 0], torch.tensor(means))
