"""Layers without a T are measured by the derivative of their outputs by their inputs."""

import copy
import warnings
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

import statesize as ss
from statesize.adapters.trace import derivative
from statesize.codes import joined
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


class Cells(nn.Module):
    """A GRU in a loop of one's own."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(5, 4)

    def forward(self, hidden):
        state, outputs = hidden.new_zeros(len(hidden), 4), []
        for entering in hidden.unbind(1):
            state = self.cell(entering, state)
            outputs.append(state)
        return torch.stack(outputs, 1)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def jacobian_of(layer, hidden):
    """∂y/∂x of a layer by autograd, (S, L, q, L, p)."""
    layer = layer.double()
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
    torch.testing.assert_close(item.operator.matrix[:, 0], jacobian_of(model.mixer, hidden), rtol=0, atol=1e-12)


class Complex(nn.Module):
    """A linear recurrence whose state, and all that it is made by, is complex."""

    def __init__(self, keep):
        super().__init__()
        numbers = (
            torch.polar(torch.rand(4) / 2 + 0.5, 3 * torch.rand(4)),
            *torch.randn(2, 4, 5, dtype=torch.complex64),
        )
        for name, tensor in zip(("decay", "write", "read"), numbers, strict=True):
            keep(self, name, tensor)

    def forward(self, hidden):
        state, outputs = self.decay * 0, []
        for entering in hidden.unbind(1):
            state = self.decay * state + entering.to(self.write.dtype) @ self.write.mT
            outputs.append((state @ self.read).real)
        return torch.stack(outputs, 1)

    def expected(self, hidden):
        """Re(C Λ^(i − j) B), (1, L, q, L, p)."""
        decay, write, read = (one.detach().to(torch.complex128) for one in (self.decay, self.write, self.read))
        distance = torch.arange(14)[:, None] - torch.arange(14)
        powers = decay ** distance.clamp(min=0)[..., None] * (distance >= 0)[..., None]
        return torch.einsum("ijn,nq,np->iqjp", powers, read, write).real[None]


def parameter(module, name, tensor):
    setattr(module, name, nn.Parameter(tensor))


def plain(model):
    return model


def normed(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(model[1].cell, "weight_hh")
    return model


@pytest.mark.parametrize("mode", [nullcontext, torch.inference_mode])
@pytest.mark.parametrize(
    ("make", "change"),
    [
        (partial(Complex, parameter), plain),
        (partial(Complex, nn.Module.register_buffer), plain),
        (Cells, plain),
        (Cells, normed),
    ],
    ids=["complex weights", "complex buffers", "cells", "weights by weight_norm"],
)
def test_layers_and_networks_are_measured_whatever_their_tensors_are(make, change, mode):
    model = seeded(lambda: nn.Sequential(nn.Embedding(30, 5), make()))
    hidden = model[0](TOKENS).detach().double()
    expected = getattr(model[1], "expected", partial(jacobian_of, copy.deepcopy(model[1])))(hidden)
    model = change(model)
    with mode():
        (captured,) = ss.capture(model, TOKENS)
        network = ss.network_ess(model, TOKENS, [7], start="0", end="1")
    torch.testing.assert_close(captured.operator.matrix[:, 0], expected, rtol=0, atol=1e-7)
    sigma = torch.linalg.svdvals(expected[0, 7:, :, :7].flatten(0, 1).flatten(1))
    torch.testing.assert_close(network.values[0], sigma[:16], rtol=0, atol=1e-7)


class GatedCells(Cells):
    """The same, whose outputs another argument gates."""

    def forward(self, gate, hidden):
        return super().forward(hidden) * torch.sigmoid(gate[..., :4])


class Called(nn.Module):
    """A layer that calls it, with one tensor twice or with two."""

    def __init__(self, twice):
        super().__init__()
        self.cells, self.twice = GatedCells(), twice

    def forward(self, hidden):
        return self.cells(hidden if self.twice else hidden + 1, hidden)


def test_a_tensor_that_a_layer_takes_twice_varies_in_both_places_and_another_one_is_held():
    both, one = (
        seeded(lambda twice=twice: nn.Sequential(nn.Embedding(30, 5), Called(twice))) for twice in (True, False)
    )
    ((found,), (held,)) = (ss.capture(model, TOKENS) for model in (both, one))
    hidden = both[0](TOKENS).detach().double()
    assert (found.name, held.name) == ("1.cells", "1.cells")
    assert "other arguments" not in joined(found.notes)
    expected = jacobian_of(both[1].double(), hidden)
    torch.testing.assert_close(found.operator.matrix[:, 0], expected, rtol=0, atol=1e-12)
    assert joined(held.notes).startswith("Measured in part: its other arguments, as large as the first, are held.")


def test_what_torch_cannot_derive_is_refused_in_its_words():
    class Written(Cells):
        def forward(self, hidden):
            mixed = super().forward(hidden)
            return torch.mul(mixed, 2, out=torch.empty_like(mixed))

    model = nn.Sequential(nn.Embedding(30, 5), Written())
    with pytest.raises(ModelError, match=r"Mixer 1 must be differentiable, got from torch: mul\(\): functions with"):
        list(ss.capture(model, TOKENS))


def test_a_recurrent_layer_in_both_directions_is_refused():
    with pytest.raises(ModelError, match="Mixer mixer must be causal, but an output"):
        list(ss.capture(Recurrent(nn.GRU, batch_first=True, bidirectional=True), TOKENS))


def test_a_large_derivative_is_measured_by_products_at_few_positions():
    model = seeded(lambda: Recurrent(nn.GRU, 512, 8, batch_first=True))  # of so many inputs that it is not held
    profile = ss.profile(model, [TOKENS[0], TOKENS[0, :10]])
    node = profile.mixer("mixer")
    assert node.attrs["engine"].startswith("implicit (95%)")
    spread, shorter = (list(make_cut(length, 8).positions) for length in (14, 10))
    assert node["position"].values.tolist() == sorted({0, *spread, *shorter})
    hidden = model.embedding(TOKENS).detach().double()
    matrix = jacobian_of(model.mixer, hidden)[0]
    for position in spread:
        sigma = torch.linalg.svdvals(matrix[position:, :, :position].flatten(0, 1).flatten(1))
        share = sigma / sigma.sum()
        entropy = torch.exp(-torch.special.xlogy(share, share).sum())
        found = node.sel(position=position).isel(sequence=0, channel=0)
        assert abs(float(found["entropy"]) - entropy) <= float(found["entropy_bound"]) + 1e-5
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
        rank = torch.linalg.matrix_rank(blocks)
        assert measured.relative_count[:, position - 1, 0].tolist() == rank.tolist()
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
