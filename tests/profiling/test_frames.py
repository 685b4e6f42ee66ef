"""Whatever a model takes is profiled: frames of any layout, and mappings to its arguments."""

import numpy as np
import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize.errors import InputError
from statesize.texts.inputs import given_sequences, tokens_sha256

LENGTH = 24


class Block(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.norm, self.projection = nn.LayerNorm(width), nn.Linear(width, 3 * width)

    def forward(self, hidden):
        split = (
            part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.projection(self.norm(hidden)).chunk(3, -1)
        )
        mixed = functional.scaled_dot_product_attention(*split, is_causal=True)
        return hidden + mixed.transpose(1, 2).flatten(2)


class Series(nn.Module):
    """Frames (B, L, W), as of a time series."""

    def __init__(self, width=3):
        super().__init__()
        self.into, self.out = nn.Linear(width, 16), nn.Linear(16, width)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def mixed(self, hidden):
        for block in self.blocks:
            hidden = block(hidden)
        return self.out(hidden)

    def forward(self, frames):
        return self.mixed(self.into(frames))


class Sound(Series):
    """Frames (B, W, L), as convolutions take them."""

    def __init__(self, width=3):
        super().__init__(width)
        self.into = nn.Conv1d(width, 16, 1)

    def forward(self, sound):
        return self.mixed(self.into(sound).mT).mT


class Padding(nn.Module):
    """A causal convolution, whose input is a padded copy."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(3, 3, 3)

    def forward(self, sound):
        return self.convolution(functional.pad(sound, (2, 0)))


class Loop(nn.Module):
    """A recurrence over dimension 0."""

    def __init__(self):
        super().__init__()
        self.loop = nn.GRU(3, 4)

    def forward(self, frames):
        return self.loop(frames)[0]


class Copied(nn.Module):
    """A recurrence over dimension 1 of a copy."""

    def __init__(self):
        super().__init__()
        self.loop = nn.GRU(3, 4, batch_first=True)

    def forward(self, frames):
        return self.loop(frames.transpose(0, 1).contiguous())[0].transpose(0, 1)


def frames(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


LAYOUTS = {
    "channels first": (Sound, (), (2, 3, LENGTH)),
    "padded": (Padding, (), (2, 3, LENGTH)),
    "as many channels": (Sound, (LENGTH,), (2, LENGTH, LENGTH)),
    "positions first": (Loop, (), (LENGTH, 2, 3)),
    "positions first, in a copy": (Copied, (), (LENGTH, 2, 3)),
}


@pytest.mark.few(2)
# Where channels are as many as positions, a channel that is changed looks like a position that mixes.
@pytest.mark.filterwarnings("ignore:.*Sound mixes positions before what is measured in it")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_positions_lie_where_the_modules_say(layout):
    kind, args, shape = LAYOUTS[layout]
    model, inputs = kind(*args).eval(), frames(*shape)
    captured = list(ss.capture(model, inputs))
    assert {item.operator.length for item in captured} == {LENGTH}
    profile = ss.profile(model, inputs)
    assert profile.tokens["length"].values.tolist() == [LENGTH, LENGTH]
    assert profile.mixers == tuple(item.name for item in captured)
    axis = shape.index(LENGTH) if layout != "as many channels" else 2
    assert ss.profile(model, inputs, axis=axis).summary().equals(profile.summary())


@pytest.mark.parametrize("frames", [torch.randn(1, LENGTH, 15), np.zeros((1, LENGTH, 16))])
def test_frames_that_a_layer_does_not_take_are_refused_in_its_words(frames):
    class Layer(nn.Linear):
        def forward(self, hidden):
            return super().forward(hidden).cumsum(1)

    with pytest.raises(InputError, match="enters Layer") as refused:
        ss.profile(Layer(16, 16), frames)
    assert str(refused.value.__cause__).partition("\n")[0] in str(refused.value)


def test_codes_of_three_dimensions_need_their_axis_and_others_are_refused():
    class Codes(Series):
        def __init__(self):
            super().__init__(16)
            self.embedding = nn.Embedding(8, 16)

        def forward(self, codes):
            return self.mixed(self.embedding(codes).sum(1))

    model, codes = Codes().eval(), torch.arange(2 * 3 * LENGTH).reshape(2, 3, LENGTH) % 8
    with pytest.raises(InputError, match="axis"):
        ss.profile(model, codes)
    assert ss.profile(model, codes, axis=-1).tokens["length"].values.tolist() == [LENGTH, LENGTH]
    with pytest.raises(InputError):
        ss.profile(model, codes, axis=3)


def test_positions_are_labelled_by_number(tmp_path):
    model, inputs = Series().eval(), frames(2, LENGTH, 3)
    profile = ss.profile(model, inputs)
    assert profile.tokens["tokens"].values.tolist() == [list(map(str, range(LENGTH)))] * 2
    assert (profile.tokens["token_ids"].values == -1).all()
    page = profile.to_html(tmp_path / "page.html").read_text()
    assert f"2 sequences of {LENGTH} positions" in page
    assert f"past position {LENGTH // 2} of {LENGTH}" in page


def test_a_mapping_is_handed_to_the_model_as_it_is():
    model, ids = attention_model("llama"), token_ids(2, 12)
    with torch.no_grad():
        embeddings = model.get_input_embeddings()(ids)
    plain = ss.profile(model, ids)
    for inputs in (
        [{"inputs_embeds": row[None]} for row in embeddings],
        [{"input_ids": row[None], "position_ids": torch.arange(12)[None]} for row in ids],
    ):
        np.testing.assert_allclose(ss.profile(model, inputs).ess().values, plain.ess().values, rtol=1e-6)
    # Of the last one, which has token ids.
    assert ss.profile(model, inputs).tokens["tokens"].equals(plain.tokens["tokens"])
    later = ss.profile(model, [{"input_ids": row[None], "position_ids": 3 * torch.arange(12)[None]} for row in ids])
    assert not np.allclose(later.ess().values, plain.ess().values, rtol=1e-3)


def test_digests_tell_arguments_apart():
    model, inputs = Series().eval(), frames(1, LENGTH, 3)

    def digest(given, axis=None):
        return tokens_sha256(list(given_sequences(model, given, None, axis)))

    assert digest(inputs) == digest(inputs.clone()) == digest(inputs, 1)
    others = {digest(other) for other in (inputs + 1, inputs[:, :-1], {"frames": inputs})} | {digest(inputs, 2)}
    assert len(others - {digest(inputs)}) == 4
