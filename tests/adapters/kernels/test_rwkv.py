from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from statesize import measure
from statesize.adapters.kernels.scans import rwkv_attention
from statesize.adapters.replaced import ReplacedCall

# Logarithms of w: a channel that forgets nothing, usual ones, and one that only sees the previous token.
DECAYS = torch.tensor([-12.0, -3.0, 0.0, 3.0, 4.5, 8.0], dtype=torch.float64)


def _call(key: Tensor) -> ReplacedCall:
    first = torch.linspace(-5, 5, len(DECAYS), dtype=torch.float64)
    arguments = {"time_decay": DECAYS, "time_first": first, "key": key, "value": torch.ones_like(key), "state": None}
    return ReplacedCall("attention", nn.Identity(), arguments, torch.ones_like(key))


def _definition(call: ReplacedCall) -> Tensor:
    """Softmax over k_j − (t − 1 − j) w for j < t and u + k_t for j = t, (channels, L, L)."""
    key, decay, first = (call.arguments[name] for name in ("key", "time_decay", "time_first"))
    length = key.shape[1]
    lag = torch.arange(length)[:, None] - torch.arange(length)
    past = key[0].T[:, None] - (lag - 1) * decay.exp()[:, None, None]
    present = torch.diag_embed((key[0] + first).T)
    logits = torch.where(lag > 0, past, torch.where(lag == 0, present, -torch.inf))
    return logits.softmax(-1)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_rows_are_a_softmax_whatever_the_decay(scale: float) -> None:
    key = scale * torch.randn(1, 300, len(DECAYS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    call = _call(key)
    operator = rwkv_attention(call).operator(slice(None))
    torch.testing.assert_close(operator.dense()[0], _definition(call), rtol=1e-9, atol=1e-12)


def test_the_state_is_one_number_and_spectra_are_those_of_the_definition() -> None:
    key = torch.randn(1, 24, len(DECAYS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    call = _call(key)
    observation = rwkv_attention(call)
    operator = observation.operator(slice(None))
    # Numerator, denominator and running maximum of each of six channels.
    assert observation.state_bytes == 3 * 6 * 4
    found = measure(operator, tolerances=(1e-9,), outputs=("counts", "values"))
    assert bool((found.ceiling == 1).all())
    for i in range(1, 24):
        expected = torch.linalg.matrix_norm(_definition(call)[:, i:, :i], 2)
        torch.testing.assert_close(found.values[0, :, i - 1, 0], expected, rtol=1e-10, atol=1e-12)
    assert bool((found.values[..., 1:] < 1e-12).all())
