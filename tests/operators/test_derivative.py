"""Derivatives of causal functions against autograd's Jacobian, as matrices and by products."""

import pytest
import torch
from oracles.draws import normal
from oracles.exact import effective_rank
from torch import nn
from torch.autograd.functional import jacobian
from torch.nn import functional

import statesize as ss
from statesize.codes import Code, Note
from statesize.errors import EngineError, InputError
from statesize.operators import Derivative
from statesize.operators.derivative import LARGEST


def recurrent(inputs, outputs, kind=nn.GRU, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = kind(inputs, outputs, batch_first=True, **options).double().requires_grad_(False)
    return lambda sequences: module(sequences)[0]


@pytest.fixture(scope="module")
def wide():
    """A GRU whose derivative is too large to be measured as a matrix, and that matrix, (L, q, L, p)."""
    function, point = recurrent(72, 6), normal(60, 72)
    states = torch.full((60,), 6)
    return Derivative(function, point, states), jacobian(function, point)


def test_it_is_the_jacobian_of_each_entry():
    function, point = recurrent(4, 3), normal(2, 3, 8, 4)
    operator = Derivative(lambda inputs: function(inputs.flatten(0, 1)).unflatten(0, (2, 3)), point)
    assert (operator.inputs, operator.outputs, operator.batch_shape) == (4, 3, (2, 3))
    whole = operator.block_dense().matrix
    for entry in ((0, 0), (1, 2)):
        expected = jacobian(function, point[entry])
        torch.testing.assert_close(whole[entry], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(operator[entry].block_dense().matrix, expected, rtol=0, atol=1e-12)


def test_a_large_one_is_measured_by_products(wide):
    operator, matrix = wide
    assert operator.length * operator.inputs > LARGEST
    found = ss.measure(operator, tolerances=[1e-3], relative_tolerances=[1e-2], positions=[59, 3, 30, 1])
    assert found.engine.startswith("implicit (95%)")
    assert found.ceiling.tolist() == [6, 6, 6, 6]
    for place, i in enumerate(found.positions.tolist()):
        sigma = torch.linalg.svdvals(matrix[i:, :, :i].flatten(0, 1).flatten(1))
        entropy = float(effective_rank(sigma.numpy()))
        assert abs(found.entropy[place] - entropy) <= found.entropy_bound[place] + 1e-9
        assert found.entropy_bound[place] <= 0.005 * entropy
        assert found.lower[place, 0] <= (sigma > 1e-3).sum() <= found.upper[place, 0]
        assert found.relative_lower[place, 0] <= (sigma > 1e-2 * sigma[0]).sum() <= found.relative_upper[place, 0]
        torch.testing.assert_close(found.norm[place], torch.linalg.vector_norm(sigma), rtol=0.05, atol=0)


def test_columns_are_weighted_in_products_too(wide):
    operator, matrix = wide
    weights = torch.arange(60.0, dtype=torch.float64) % 3
    found = ss.measure(operator, positions=[20], weights=weights)
    sigma = torch.linalg.svdvals((matrix * weights[:, None])[20:, :, :20].flatten(0, 1).flatten(1))
    assert abs(found.entropy - float(effective_rank(sigma.numpy()))) <= found.entropy_bound + 1e-9


def test_blocks_of_zeros_have_no_size():
    found = ss.measure(Derivative(torch.sin, normal(60, 72)), positions=[1, 30])
    assert found.entropy.tolist() == [0, 0]
    assert found.upper.max() == found.relative_upper.max() == found.norm.max() == 0


def test_what_products_do_not_give_is_refused(wide):
    operator, _ = wide
    for options in ({"engine": "dense"}, {"past": 3}, {"outputs": "values"}):
        with pytest.raises(EngineError):
            ss.measure(operator, positions=[20], **options)


@pytest.mark.parametrize(
    ("function", "causes"),
    [
        (lambda inputs: inputs.flip(-2), [Code.LOOKS_AHEAD]),
        (lambda inputs: inputs + inputs.roll(-1, -2) * 1e-6, [Code.LOOKS_AHEAD]),
        (
            lambda inputs: torch.cat([inputs[..., :1, :] + inputs[..., 1:2, :], inputs[..., 1:, :]], -2),
            [Code.LOOKS_AHEAD],
        ),
        (lambda inputs: inputs.round() + inputs - inputs.detach(), []),
        (lambda inputs: inputs * 0 + 1, []),
    ],
    ids=["backwards", "a step ahead", "ahead at the first", "another derivative", "constant"],
)
def test_other_functions_are_refused(function, causes):
    point = torch.zeros(9, 2, dtype=torch.float64)
    point[4] = 1.0
    with pytest.raises(InputError, match=r"^function") as raised:
        Derivative(function, point + 0.2)
    assert [note.code for note in raised.value.args if isinstance(note, Note)] == causes


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_what_lies_ahead_is_rounding_up_to_a_limit(dtype, limit):
    point = normal(9, 2).to(dtype)
    Derivative(lambda inputs: inputs + inputs.roll(-1, -2) * limit / 10, point)
    with pytest.raises(InputError, match="must be causal"):
        Derivative(lambda inputs: inputs + inputs.roll(-1, -2) * limit * 30, point)


class MinGRU(nn.Module):
    """h_t = (1 − z_t) h_{t−1} + z_t g(v_t), as a scan of logarithms (Feng et al. 2024) or by steps."""

    def __init__(self, in_logarithms):
        super().__init__()
        torch.manual_seed(0)
        self.project, self.in_logarithms = nn.Linear(4, 8).double(), in_logarithms

    def forward(self, hidden):
        values, gates = self.project(hidden).chunk(2, -1)
        if self.in_logarithms:
            small = -functional.softplus(-values)
            entering = torch.where(values >= 0, (functional.relu(values) + 0.5).log(), small)
            kept = -functional.softplus(gates).cumsum(1)
            return (kept + (entering - functional.softplus(-gates) - kept).logcumsumexp(1)).exp()
        entering, rates = torch.where(values >= 0, values + 0.5, values.sigmoid()), gates.sigmoid()
        state, outputs = torch.zeros_like(hidden[:, 0]), []
        for at in range(hidden.shape[1]):
            state = (1 - rates[:, at]) * state + rates[:, at] * entering[:, at]
            outputs.append(state)
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("length", [9, 40])
@pytest.mark.parametrize("seed", range(3))
def test_products_of_a_scan_in_log_space_are_those_of_its_steps(seed, length):
    point, vectors = normal(length, 4, seed=seed), normal(5, length * 4, seed=seed + 9)
    with torch.random.fork_rng():
        layers = MinGRU(in_logarithms=True), MinGRU(in_logarithms=False)
    scan, steps = (Derivative(layer, point[None]).jacobian(0, length, 0) for layer in layers)
    for product in ("forward", "adjoint", "gram"):
        one, other = (getattr(jacobian, product)(vectors) for jacobian in (scan, steps))
        assert (one - other).abs().max() < 1e-12 * other.abs().max()
