"""T of fla's kernels against their rules, step by step; fla itself need not be here."""

import pytest
import torch
from torch import nn

from statesize.adapters.fla.call import FlaCall
from statesize.adapters.fla.formulas import delta_product, delta_rule, gated

LENGTH, HEADS, KEYS, CHANNELS = 5, 2, 3, 4


def call_of(**arguments):
    output = torch.zeros(1, LENGTH, HEADS, CHANNELS)
    return FlaCall("layer", nn.Identity(), arguments, output, function=call_of, length=LENGTH)


def drawn(seed, *shape):
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stepped(key, query, values, decay, strength=None):
    """S ← D S, S ← S + β k (v − kᵀ S) or S + k v at each step, and qᵀ S behind it, (1, H, steps, P)."""
    state, read = torch.zeros(1, HEADS, KEYS, CHANNELS, dtype=torch.float64), []
    for t in range(key.shape[1]):
        state, change = decay[:, t, :, :, None] * state, values[:, t]
        if strength is not None:
            change = strength[:, t, :, None] * (change - torch.einsum("shk,shkp->shp", key[:, t], state))
        state = state + key[:, t, :, :, None] * change[:, :, None]
        read.append(torch.einsum("shk,shkp->shp", query[:, t], state) / KEYS**0.5)
    return torch.stack(read, 2)


@pytest.mark.parametrize("formula", [gated, delta_rule])
def test_decays_and_delta_rules(formula):
    key, query, decay = (
        drawn(0, LENGTH, HEADS, KEYS) / 2,
        drawn(1, LENGTH, HEADS, KEYS),
        -drawn(2, LENGTH, HEADS, KEYS).abs(),
    )
    strength, values = drawn(3, LENGTH, HEADS).sigmoid(), drawn(4, LENGTH, HEADS, CHANNELS)
    found = formula(call_of(k=key, q=query, gk=decay, beta=strength), slice(None)).apply(values.transpose(1, 2))
    expected = stepped(key, query, values, decay.exp(), strength if formula is delta_rule else None)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("by_position", [True, False])
@pytest.mark.parametrize("decays", [True, False])
def test_several_steps_of_the_delta_rule_for_each_position(steps, by_position, decays):
    total, at = LENGTH * steps, torch.arange(LENGTH) * steps
    key, strength, values = (
        drawn(0, total, HEADS, KEYS) / 2,
        drawn(1, total, HEADS).sigmoid(),
        drawn(2, total, HEADS, CHANNELS),
    )
    query, gate = drawn(3, total, HEADS, KEYS), -drawn(4, total, HEADS).abs()
    if by_position:
        # The first step of a position decays, and the last is read.
        gate[:, [t for t in range(total) if t % steps]] = 0
    gate = gate if decays else 0 * gate
    given = {"k": key, "q": query, "beta": strength, "g": gate}
    if by_position:
        given |= {"q": query[:, at + steps - 1], "g": gate[:, at]}
    if not decays:
        del given["g"]
    found = delta_product(call_of(**given), slice(None))
    assert (found.length, found.inputs) == (LENGTH, steps)
    expected = stepped(key, query, values, gate[..., None].exp(), strength)[:, :, at + steps - 1]
    entering = values.unflatten(1, (LENGTH, steps)).movedim(2, 3).flatten(3).transpose(1, 2)
    torch.testing.assert_close(found.apply(entering), expected, rtol=1e-12, atol=1e-14)
