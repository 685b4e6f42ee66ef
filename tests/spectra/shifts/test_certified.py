"""Where shifts are placed while counts are brought between bounds."""

import torch

from statesize.spectra.shifts.certified import _target


def test_the_outermost_open_threshold_comes_first_and_then_the_middle():
    bounds = torch.tensor([[0.5, 3.0, 2.0, 9.0], [4.0, 0.1, 7.0, 1.0]], dtype=torch.float64)
    open_ = torch.tensor([[True, True, True, False], [True, True, False, True]])
    for attempt in (0, 1):
        assert _target(bounds, open_, 1, attempt).tolist() == [3.0, 4.0]
        assert _target(bounds, open_, -1, attempt).tolist() == [0.5, 0.1]
    for side in (1, -1):
        assert _target(bounds, open_, side, 2).tolist() == [2.0, 1.0]
