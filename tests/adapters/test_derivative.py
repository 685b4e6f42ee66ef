"""Layers without a T are measured by the derivative of their outputs by their inputs."""

import warnings
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from oracles.own_layers import WIDTH, Own, cells, model_of
from torch import nn
from torch.autograd.functional import jacobian

import statesize as ss
from statesize.adapters.trace import derivative
from statesize.codes import Code, Note
from statesize.errors import ModelError
from statesize.operators import BlockDense, Derivative
from statesize.spectra.cut import make_cut

TOKENS = torch.arange(14)[None]


class Recurrent(nn.Module):
    """A language model of one recurrent layer of torch."""

    def __init__(self, kind, width=5, states=4, **options):
        super().__init__()
        self.embedding, self.mixer = nn.Embedding(30, width), kind(width, states, **options)

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        if self.mixer.batch_first:
            return self.mixer(hidden)[0]
        return self.mixer(hidden.transpose(0, 1))[0].transpose(0, 1)


CELL = partial(nn.GRUCell, WIDTH, 4)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def jacobian_of(layer, hidden):
    """∂y/∂x of a layer by autograd, (S, L, q, L, p)."""
    of_all = jacobian(lambda entering: (lambda out: out[0] if isinstance(out, tuple) else out)(layer(entering)), hidden)
    return torch.stack([of_all[text, :, :, text] for text in range(len(hidden))])


@pytest.mark.parametrize(
    ("kind", "options", "states"),
    [
        (nn.LSTM, {"batch_first": True}, 8),
        (nn.LSTM, {"batch_first": True, "proj_size": 3}, 7),
        (nn.RNN, {"batch_first": True, "num_layers": 2}, 8),
        (nn.GRU, {}, 4),
    ],
    ids=["lstm", "projected", "two layers", "positions first"],
)
@pytest.mark.parametrize("texts", [2, 14])  # as many as tokens
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_recurrent_layer_is_measured_by_its_jacobian(kind, options, states, texts):
    model = seeded(lambda: Recurrent(kind, **options))
    tokens = torch.randint(30, (texts, 14), generator=torch.Generator().manual_seed(0))
    (item,) = ss.capture(model, tokens)
    assert (item.name, item.kind, item.units, item.state_bytes) == ("mixer", "derivative", 1, 4 * states)
    assert item.faithfulness < 1e-6
    assert item.operator.state_size().tolist() == [min(states, 5 * position) for position in range(14)]
    hidden = model.embedding(tokens).detach().double()
    model.mixer.batch_first = True
    expected = jacobian_of(model.mixer.double(), hidden)
    torch.testing.assert_close(item.operator.matrix[:, 0], expected, rtol=0, atol=1e-12)


class Complex(nn.Module):
    """A linear recurrence whose state, and all that it is made by, is complex."""

    def __init__(self, keep):
        super().__init__()
        keep(self, "decay", torch.polar(torch.rand(4) / 2 + 0.5, 3 * torch.rand(4)))
        for name in ("write", "read"):
            keep(self, name, torch.randn(4, WIDTH, dtype=torch.complex64))

    def forward(self, hidden):
        state, outputs = self.decay * 0, []
        for entering in hidden.unbind(1):
            state = self.decay * state + entering.to(self.write.dtype) @ self.write.mT
            outputs.append((state @ self.read).real)
        return torch.stack(outputs, 1)


def parameter(module, name, tensor):
    setattr(module, name, nn.Parameter(tensor))


def complex_numbers(keep):
    return seeded(lambda: nn.Sequential(nn.Embedding(30, WIDTH), Complex(keep)))


def of_cells():
    return model_of(cells, CELL).float().requires_grad_()


def normed():
    model = of_cells()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(model[1].inner, "weight_hh")
    return model


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
@pytest.mark.parametrize("mode", [nullcontext, torch.inference_mode])
@pytest.mark.parametrize(
    "make",
    [partial(complex_numbers, parameter), partial(complex_numbers, nn.Module.register_buffer), of_cells, normed],
    ids=["complex weights", "complex buffers", "cells", "weights by weight_norm"],
)
def test_layers_and_networks_are_measured_whatever_their_tensors_are(make, mode):
    model, plain = make(), (of_cells if make is normed else make)()[1]
    hidden = model[0](TOKENS).detach().double()
    expected = jacobian_of(plain.to(torch.complex128) if isinstance(plain, Complex) else plain.double(), hidden)
    with mode():
        (captured,) = ss.capture(model, TOKENS)
        network = ss.network_ess(model, TOKENS, [7], start="0", end="1")
    torch.testing.assert_close(captured.operator.matrix[:, 0], expected, rtol=0, atol=1e-7)
    sigma = torch.linalg.svdvals(expected[0, 7:, :, :7].flatten(0, 1).flatten(1))
    torch.testing.assert_close(network.values[0], sigma[: network.values.shape[1]], rtol=0, atol=1e-7)


class GatedCells(Own):
    """Cells whose outputs another argument gates."""

    def forward(self, gate, hidden):
        return super().forward(hidden) * gate.sigmoid()


@pytest.mark.parametrize("twice", [True, False])
def test_a_tensor_that_a_layer_takes_twice_varies_in_both_places_and_another_one_is_held(twice):
    model = model_of(lambda own, h, v: own.inner(h if twice else h + 1, h), partial(GatedCells, cells, CELL))
    (item,) = ss.capture(model, TOKENS)
    assert item.name == "1.inner"
    assert (Code.PART in {note.code for note in item.notes}) == (not twice)
    if twice:
        expected = jacobian_of(lambda hidden: model[1].inner(hidden, hidden), model[0](TOKENS))
        torch.testing.assert_close(item.operator.matrix[:, 0], expected, rtol=0, atol=1e-12)


def test_a_recurrent_layer_in_both_directions_is_refused():
    with pytest.raises(ModelError) as refused:
        list(ss.capture(Recurrent(nn.GRU, batch_first=True, bidirectional=True), TOKENS))
    assert Note.of(refused.value).code is Code.LOOKS_AHEAD


def test_a_large_derivative_is_measured_by_products_at_few_positions():
    model = seeded(lambda: Recurrent(nn.GRU, 512, 8, batch_first=True))  # of so many inputs that it is not held
    profile = ss.profile(model, [TOKENS[0], TOKENS[0, :10]])
    node = profile.mixer("mixer")
    assert node.attrs["engine"].startswith("implicit (95%)")
    spread, shorter = (list(make_cut(length, 8).positions) for length in (14, 10))
    assert node["position"].values.tolist() == sorted({0, *spread, *shorter})
    row = profile.summary().iloc[0]
    assert (row.kind, row.tss, row.state_bytes) == ("derivative", 8, 32)
    assert 0 < row.state_utilisation < 1


def test_blocks_of_several_inputs_and_outputs_are_measured_as_they_are():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(2, 7, 3, 7, 2, dtype=torch.float64, generator=generator)
    matrix *= torch.ones(7, 7, dtype=torch.float64).tril()[:, None, :, None]
    measured = ss.measure(BlockDense(matrix), relative_tolerances=[1e-9])
    for position in range(1, 7):
        blocks = matrix[:, position:, :, :position].reshape(2, 3 * (7 - position), 2 * position)
        norm = torch.linalg.matrix_norm(blocks)
        torch.testing.assert_close(measured.norm[:, position - 1], norm)
        assert torch.equal(measured.relative_count[:, position - 1, 0], torch.linalg.matrix_rank(blocks))
    assert measured.ceiling.tolist() == [min(2 * i, 3 * (7 - i)) for i in range(1, 7)]


def test_a_recurrent_layer_may_be_the_whole_model():
    (captured,) = ss.capture(nn.GRU(4, 3, batch_first=True), torch.randn(1, 9, 4))
    assert (captured.name, captured.kind) == ("GRU", "derivative")


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_a_second_number_counts_from_a_share_of_the_first_on(dtype, limit):
    signs = torch.tensor([1, -1] * 12, dtype=dtype)[:, None]
    for second, more in ((limit / 30, False), (limit * 30, True)):

        def summed(inputs, second=second):
            return inputs.cumsum(-2) + second * signs * (signs * inputs).cumsum(-2)

        point = torch.randn(1, 24, 1, generator=torch.Generator().manual_seed(0)).to(dtype)
        assert derivative._carries_more(Derivative(summed, point), 1) == more
