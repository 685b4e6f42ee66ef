"""The same call again gives the same bits; other numbers of threads give the same within rounding."""

import pandas as pd
import pytest
import torch

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import profile


def measured(pattern, threads, **options):
    config = ModelConfig(pattern, vocabulary_size=64, width=16, heads=2, layers=2, key_size=8)
    model = LanguageModel(config, torch.Generator().manual_seed(1)).eval()
    ids = torch.randint(64, (2, 40), generator=torch.Generator().manual_seed(2))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return profile(model, ids, **options).to_dataframe()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("pattern", ["sa,gla", "s4d,hyena"])
def test_a_profile_is_the_same_again(pattern):
    first = measured(pattern, 1)
    pd.testing.assert_frame_equal(first, measured(pattern, 1), check_exact=True)
    for other in (measured(pattern, 2), measured(pattern, 1, memory=400_000)):
        pd.testing.assert_frame_equal(first, other, check_exact=False, rtol=1e-4, atol=1e-4)
