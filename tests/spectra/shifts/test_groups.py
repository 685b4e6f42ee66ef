"""Where shifts are placed while counts are brought between bounds."""

import torch

from statesize.spectra.shifts.groups import next_target


def test_the_outermost_unresolvedthreshold_comes_first_and_then_the_middle():
    bounds = torch.tensor([[0.5, 3.0, 2.0, 9.0], [4.0, 0.1, 7.0, 1.0]], dtype=torch.float64)
    unresolved = torch.tensor([[True, True, True, False], [True, True, False, True]])
    for attempt in (0, 1):
        assert next_target(bounds, unresolved, 1, attempt).tolist() == [3.0, 4.0]
        assert next_target(bounds, unresolved, -1, attempt).tolist() == [0.5, 0.1]
    for side in (1, -1):
        assert next_target(bounds, unresolved, side, 2).tolist() == [2.0, 1.0]
