"""The same again: what the campaign counts."""

import pytest
import torch

from campaigns.determinism.__main__ import profiles


@pytest.mark.filterwarnings("ignore")
def test_the_same_threads_give_the_same_bits():
    assert dict(profiles(["recall-la"], [1, 1])) == {"identical": 2}
    assert torch.get_num_threads() == 1
