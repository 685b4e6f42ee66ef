"""T of fla's kernels against their rules, step by step; fla itself need not be here."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from statesize.adapters.fla.attention import Impulses
from statesize.adapters.fla.call import FlaCall, _unpacked
from statesize.adapters.fla.formulas import delta_product, delta_rule, gated, rwkv6, simple
from statesize.adapters.fla.mamba import mamba2
from statesize.adapters.observation import ModuleStack
from statesize.adapters.replaced import MixerCall, PartCall
from statesize.errors import ModelError

LENGTH, HEADS, KEYS, CHANNELS = 5, 2, 3, 4


def call_of(**arguments):
    output = torch.zeros(1, LENGTH, HEADS, CHANNELS)
    return FlaCall("layer", nn.Identity(), arguments, output, function=call_of, length=LENGTH)


def drawn(seed, *shape):
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stepped(key, query, values, decay, strength=None, bonus=None):
    """S ← D S, S ← S + β k (v − kᵀ S) or S + k v, and qᵀ S behind that, or qᵀ (S + u k v) before, (1, H, steps, P)."""
    state, read = torch.zeros(1, HEADS, KEYS, CHANNELS, dtype=torch.float64), []
    for t in range(key.shape[1]):
        before, state, change = state, decay[:, t, :, :, None] * state, values[:, t]
        if strength is not None:
            change = strength[:, t, :, None] * (change - torch.einsum("shk,shkp->shp", key[:, t], state))
        state = state + key[:, t, :, :, None] * change[:, :, None]
        seen = state if bonus is None else before + (bonus * key[:, t])[..., None] * change[:, :, None]
        read.append(torch.einsum("shk,shkp->shp", query[:, t], seen) / KEYS**0.5)
    return torch.stack(read, 2)


@pytest.mark.parametrize("formula", [gated, simple, delta_rule, rwkv6])
def test_decays_and_delta_rules(formula):
    key, query, decay = (drawn(seed, LENGTH, HEADS, KEYS) for seed in range(3))
    key, decay = key / 2, -decay.abs()
    strength, values = drawn(3, LENGTH, HEADS).sigmoid(), drawn(4, LENGTH, HEADS, CHANNELS)
    decay, bonus = decay[..., :1].expand_as(decay) if formula is simple else decay, drawn(5, HEADS, KEYS)
    given = {simple: {"g": decay[..., 0]}, rwkv6: {"w": decay, "r": query, "u": bonus[0]}}.get(formula, {"gk": decay})
    found = formula(call_of(k=key, q=query, beta=strength, **given), slice(None)).apply(values.transpose(1, 2))
    strength, bonus = strength if formula is delta_rule else None, bonus if formula is rwkv6 else None
    expected = stepped(key, query, values, decay.exp(), strength, bonus)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("by_position", [True, False])
@pytest.mark.parametrize("decays", [True, False])
def test_several_steps_of_the_delta_rule_for_each_position(steps, by_position, decays):
    total, at = LENGTH * steps, torch.arange(LENGTH) * steps
    key, query, values = (drawn(seed, total, HEADS, size) for seed, size in enumerate((KEYS, KEYS, CHANNELS)))
    key, strength, gate = key / 2, drawn(3, total, HEADS).sigmoid(), -drawn(4, total, HEADS).abs()
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


def test_a_call_by_impulses_has_all_arguments_and_the_bytes_of_a_state_in_float32():
    frame, output = SimpleNamespace(name="layer", module=nn.Identity()), torch.zeros(1, LENGTH, HEADS, CHANNELS)
    running = SimpleNamespace(frame=frame, length=LENGTH)
    call = FlaCall.made(running, lambda v, **kwargs: (v, kwargs), (output,), {"g_gamma": 2}, output)
    assert call.arguments == {"v": output, "g_gamma": 2}
    assert Impulses("kind", lambda _: KEYS)(call).state_bytes == HEADS * CHANNELS * KEYS * 4


def test_mamba2_is_what_its_parts_say():
    heads = {"A_log": drawn(0, HEADS)[0], "D": drawn(1, HEADS)[0], "dt_bias": drawn(2, HEADS)[0], "n_groups": HEADS}
    sizes = {"num_heads": HEADS, "ssm_state_size": KEYS, "intermediate_size": HEADS * CHANNELS}
    layer = SimpleNamespace(**heads, **sizes, act=torch.tanh, dt_limit=(0.0, math.inf))
    convolved, steps = drawn(3, LENGTH, HEADS * (CHANNELS + 2 * KEYS)), drawn(4, LENGTH, HEADS)
    mixed = drawn(5, LENGTH, HEADS, CHANNELS)
    taken = {"norm": ((mixed.flatten(-2),), None), "conv1d": ((), convolved.mT), "in_proj": ((), steps)}
    parts = {name: PartCall(args, {}, output) for name, (args, output) in taken.items()}
    found = mamba2(MixerCall("layer", layer, parts))
    split = convolved.tanh().split((HEADS * CHANNELS, HEADS * KEYS, HEADS * KEYS), -1)
    values, key, query = (part.unflatten(-1, (HEADS, -1)) for part in split)
    step = nn.functional.softplus(steps + layer.dt_bias)[..., None]
    decay = (-layer.A_log.exp()[:, None] * step).exp().expand_as(key)
    values, passed = values.transpose(1, 2), layer.D[:, None, None] * values.transpose(1, 2)
    expected = stepped(step * key, KEYS**0.5 * query, values.transpose(1, 2), decay) + passed
    torch.testing.assert_close(found.operator(slice(None)).apply(values), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.mixed, mixed.transpose(1, 2))


SEQUENCES = 3


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
    with pytest.raises(ModelError):
        packed(*lengths)
