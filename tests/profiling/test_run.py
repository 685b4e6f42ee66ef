"""Profiles against the definition, sequence by sequence."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from statesize import capture
from statesize.errors import InputError, ModelError
from statesize.measurement.measurement import measure
from statesize.measurement.settings import Settings
from statesize.operators import Dense, Recurrence, SoftmaxAttention
from statesize.profiling import profile
from statesize.results.place import SCHEMA
from statesize.texts.inputs import tokens_sha256


class Decay(nn.Module):
    kind = "decay"

    def __init__(self, width, heads, size, shared=5):
        super().__init__()
        self.heads, self.size, self.multiplicity = heads, size, shared
        self.projection = nn.Linear(width, 2 * heads * size)
        self.value, self.output = nn.Linear(width, heads * shared), nn.Linear(heads * shared, width)

    def operator(self, hidden):
        key, query = self.projection(hidden).view(*hidden.shape[:2], 2, self.heads, self.size).permute(2, 0, 3, 1, 4)
        return Recurrence(torch.full((*key.shape[:-1], 1), 0.9, dtype=key.dtype), key, query)

    def forward(self, hidden):
        value = self.value(hidden).unflatten(-1, (self.heads, self.multiplicity)).transpose(1, 2)
        return self.output(self.operator(hidden).apply(value).transpose(1, 2).flatten(2))


class Attention(Decay):
    kind = "attention"

    def operator(self, hidden):
        key, query = self.projection(hidden).view(*hidden.shape[:2], 2, self.heads, self.size).permute(2, 0, 3, 1, 4)
        return SoftmaxAttention(query, key, self.size**-0.5)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.first, self.second = Decay(8, 2, 3), Attention(8, 3, 4)

    def forward(self, input_ids):
        return self.second(self.first(self.embedding(input_ids)))


@pytest.fixture
def model():
    torch.manual_seed(1)
    return Model()


LONG, SHORT = list(range(14)), [3, 1, 4, 1, 5, 9]


def test_every_number_is_that_of_measure(model):
    result = profile(model, [LONG, SHORT], tolerances=(1e-3, 1e-1), relative_tolerances=(1e-2,))
    assert result.mixers == ("first", "second")
    for sequence, ids in enumerate([LONG, SHORT]):
        for captured in capture(model, torch.tensor([ids])):
            expected = measure(captured.operator, (1e-3, 1e-1), (1e-2,), engine="dense")
            mixer = result.mixer(captured.name)
            past, beyond = slice(1, len(ids)), slice(len(ids), None)
            for name in ("entropy", "count", "lower", "upper", "relative_count", "norm"):
                values = mixer[name].values[sequence]
                np.testing.assert_allclose(values[:, past], getattr(expected, name)[0].numpy(), rtol=1e-5, atol=1e-6)
                assert (values[:, 0] == 0).all()
                assert np.isnan(values[:, beyond]).all()
            for name in ("state_size", "ceiling"):
                values = mixer[name].values[sequence]
                np.testing.assert_array_equal(values[past], getattr(expected, name).numpy())
                assert values[0] == 0
                assert np.isnan(values[beyond]).all()


def test_dims_coordinates_and_attributes(model):
    result = profile(model, [LONG, SHORT], tolerances=(1e-3, 1e-1), name="small")
    mixer = result.mixer("second")
    assert mixer["count"].dims == ("sequence", "head", "position", "threshold")
    assert mixer["count"].shape == (2, 3, 14, 2)
    assert mixer["position"].values.tolist() == LONG
    assert mixer["threshold"].values.tolist() == [1e-3, 1e-1]
    assert (mixer.attrs["kind"], mixer.attrs["multiplicity"], mixer.attrs["dtype"]) == ("attention", 5, "float32")
    assert mixer.attrs["engine"] == "dense"
    attributes = result.attributes
    assert attributes["model"] == "small"
    assert attributes["schema"] == SCHEMA
    assert {"statesize", "python", "torch", "transformers"} <= set(attributes["versions"])
    # Nothing was stored that another run might take up.
    assert (attributes["weights_sha256"], attributes["run_sha256"]) == ("", "")
    assert attributes["tokens_sha256"] == tokens_sha256([torch.tensor(LONG), torch.tensor(SHORT)])
    assert result.tokens["length"].values.tolist() == [14, 6]
    assert result.tokens["token_ids"].values[1].tolist() == [*SHORT, *[-1] * 8]


@pytest.mark.parametrize("chosen", [{"positions": [2]}, {"positions": 3}])
def test_tss_is_that_of_the_text_wherever_it_is_cut(model, chosen):
    every, some = (profile(model, [LONG, SHORT], **options).summary_rows() for options in ({}, chosen))
    assert [row["tss"] for row in some] == [row["tss"] for row in every] == [3, 13]


@pytest.mark.parametrize("layers", ["second", [1, "second", -1], np.int64(1)], ids=repr)
def test_layers_and_progress(model, layers):
    told = []
    result = profile(model, iter([LONG, SHORT]), layers=layers, on_progress=told.append)
    assert result.mixers == ("second",)
    assert [(step.sequence, step.sequences, step.mixer, step.mixers, step.name) for step in told] == [
        (0, 2, 0, 1, "second"),
        (1, 2, 0, 1, "second"),
    ]


def test_threads_and_mode_are_restored_after_an_interrupt(model):
    threads = torch.get_num_threads()
    model.train()

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile(model, LONG, on_progress=stop)
    assert torch.get_num_threads() == threads
    assert model.training
    assert torch.is_grad_enabled()


def test_positions_beyond_every_sequence(model):
    with pytest.raises(InputError):
        profile(model, iter([LONG, SHORT]), positions=[2, 100])


def test_windows_are_drawn_where_they_fit(model, tmp_path):
    result = profile(model, [LONG, SHORT, [1, 2, 3]], settings=Settings(past=4, future=2))
    for name in result.mixers:
        mixer = result.mixer(name)
        # No window fits at position 0, so nothing is said of it.
        assert mixer["position"].values.tolist() == list(range(4, 13))
        assert np.isfinite(mixer["entropy"].values[1, :, 0]).all()
        assert np.isnan(mixer["entropy"].values[1, :, 1:]).all()
        assert np.isnan(mixer["entropy"].values[2]).all()
        assert (mixer["ceiling"].values[0] == 2).all()
        ids = torch.tensor([LONG])
        expected = next(item for item in capture(model, ids) if item.name == name).operator
        reference = measure(expected, past=4, future=2, engine="dense")
        np.testing.assert_allclose(mixer["entropy"].values[0], reference.entropy[0].numpy(), rtol=1e-5)
    # No window is as large as a state.
    assert all(math.isnan(row["state_utilisation"]) for row in result.summary_rows())
    assert result.to_html(tmp_path / "page.html").is_file()
    assert len(result.plot.positions(sequence=0).to_dict()["datasets"]["positions"]) == 9


def test_a_sample_stands_for_the_layer(model):
    model.second = Attention(8, 16, 4)
    whole, some = (profile(model, [LONG, SHORT], channels=channels) for channels in ("all", 6))
    mixer = some.mixer("second")
    heads = mixer["head"].values
    assert len(heads) == 6
    np.testing.assert_array_equal(mixer["entropy"].values, whole.mixer("second")["entropy"].values[:, heads])
    row, true = some.summary_rows()[1], whole.summary_rows()[1]
    assert (row["units"], row["measured"], true["measured"]) == (16, 6, 16)
    assert true["average_entropy_error"] == 0
    assert row["average_entropy_error"] > 0
    # Five channels share each of sixteen heads.
    assert row["total_entropy"] == pytest.approx(80 * row["average_entropy"])
    assert row["total_entropy_error"] == pytest.approx(80 * row["average_entropy_error"])
    assert abs(row["average_entropy"] - true["average_entropy"]) <= row["average_entropy_error"]


class Fixed(Decay):
    """A mixer whose operator a test gives, as a function of the hidden states, and that has none to compare it with."""

    def __init__(self, operator):
        super().__init__(8, 2, 3)
        self.make = operator

    def operator(self, hidden):
        return self.make(hidden)

    def forward(self, hidden):
        return hidden.cummax(1).values


@pytest.mark.parametrize("scale", [1e50, 1e-50])
def test_norms_and_bounds_beyond_float32(model, scale):
    matrix = scale * torch.ones(1, 2, 14, 14, dtype=torch.float64).tril()
    model.second = Fixed(lambda _: Dense(matrix))
    result = profile(model, LONG)
    mixer, expected = result.mixer("second"), measure(Dense(matrix))
    for name in ("norm", "error_bound", "entropy_bound"):
        np.testing.assert_array_equal(mixer[name].values[0, :, 1:], getattr(expected, name)[0].numpy())
    assert result.summary_rows()[1]["norm"] == pytest.approx(float(expected.norm.mean()), rel=1e-12)


def test_a_mixer_that_sees_other_positions_than_the_tokens_is_refused(model):
    class Prefix(Model):
        def forward(self, input_ids):
            hidden = self.embedding(input_ids)
            return self.second(torch.cat([hidden[:, :1], hidden], 1))

    with pytest.raises(ModelError, match="14 tokens"):
        profile(Prefix(), LONG)
