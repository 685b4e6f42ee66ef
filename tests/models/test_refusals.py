"""Mixers that cannot be measured in some texts: the others are, and what is left out is told with its reason."""

import pytest
import torch
from torch import nn

from statesize.codes import Code
from statesize.errors import ModelError, StatesizeWarning
from statesize.profiling import profile


class Attention(nn.Module):
    """Causal, but for texts that begin with an odd token where it is told to look ahead."""

    def __init__(self, looks_ahead=False):
        super().__init__()
        self.looks_ahead = looks_ahead

    def forward(self, hidden, first):
        split = hidden.unflatten(-1, (2, 4)).transpose(1, 2)
        causal = not (self.looks_ahead and bool(first % 2))
        mixed = nn.functional.scaled_dot_product_attention(split, split, split, is_causal=causal)
        return hidden + mixed.transpose(1, 2).flatten(2)


class Model(nn.Module):
    def __init__(self, second):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.layers = nn.ModuleList([Attention(), second])

    def forward(self, input_ids):
        hidden = self.embedding(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, input_ids[0, 0])
        return hidden


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model(Attention(looks_ahead=True))


EVEN, ODD = [2, 3, 5, 7, 11, 13], [3, 5, 7, 11, 13, 17]


@pytest.mark.parametrize(
    ("texts", "measured"), [([EVEN, ODD, EVEN], [True, False, True]), ([ODD, EVEN], [False, True])]
)
def test_a_layer_that_is_refused_in_some_texts_says_in_how_many(model, texts, measured):
    told = f"Measured in {sum(measured)} of {len(texts)} sequences"
    with pytest.warns(StatesizeWarning):
        found = profile(model, texts)
    assert found.mixers == ("layers.0", "layers.1")
    reason = found.causes["layers.1"]
    assert str(reason).startswith(f"{told}; in the others: Mixer layers.1 must be causal")
    assert found.mixer("layers.1")["entropy"].notnull().values[:, 0, 1:].any(-1).tolist() == measured
    # A mean over other texts is told wherever the number is read.
    assert (found.not_measured, found.incomplete) == ({}, {"layers.1": reason})
    assert Code.SOME_TEXTS in found.summary()["limits"][1]
    assert told in repr(found)


def test_only_where_nothing_of_a_choice_is_left_is_it_an_error(model, tmp_path):
    output = tmp_path / "refused"
    # Also where an earlier run has noted it.
    for _ in range(2):
        with pytest.raises(ModelError, match="causal"):
            profile(model, [ODD, ODD], layers="layers.1", output=output)
    assert not output.exists()
    with pytest.warns(StatesizeWarning):
        chosen = profile(model, [ODD], layers=["layers.0", "layers.1"])
    assert (chosen.mixers, [*chosen.attributes["skipped"]]) == (("layers.0",), ["layers.1"])
    alone = profile(model, [ODD], layers=[0])
    assert (alone.mixers, alone.attributes["skipped"]) == (("layers.0",), {})
