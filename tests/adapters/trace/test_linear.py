"""The table of linear arguments, held to torch: each line at random numbers."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from statesize.adapters.trace.linear import KNOWN, spread
from statesize.adapters.trace.tape import Tape


def x(*shape):
    return torch.randn(shape, dtype=torch.float64)


INDEX, MASK = torch.tensor([2, 0, 1]), torch.tensor([[True, False, True]] * 3)
COMPLEX = torch.complex(x(3, 3), x(3, 3))
aten = torch.ops.aten
SOLVE = partial(torch.linalg.solve_triangular, upper=True)
# What is called, and what it is called with; the number of the argument that is linear follows.
CALLS = [
    *((name, getattr(torch, name), (x(3, 3), x(3, 3))) for name in "add sub rsub mul mm complex div".split()),
    *((name, getattr(torch, name), (x(3, 3),)) for name in "neg t trace tril triu clone diagonal rot90".split()),
    *((name, getattr(aten, name), (x(3, 3),)) for name in "diag_embed sum mean unbind _neg_view".split()),
    *((name, getattr(aten, name), (x(3, 3), 1)) for name in "cumsum unsqueeze split unsafe_split".split()),
    *((name, getattr(torch, name), (x(3, 3), x(3, 3), x(3, 3))) for name in "addmm addcmul addcdiv lerp".split()),
    *((name, getattr(torch, name), (x(3), x(3))) for name in "dot vdot".split()),
    *((name, getattr(torch, name), (x(3, 3), 0, 1)) for name in "transpose select".split()),
    *((name, getattr(aten, name), (x(3, 3), [1])) for name in "flip".split()),
    *((name, getattr(aten, name), (x(3, 3), [9])) for name in "view _unsafe_view".split()),
    *((name, getattr(aten, name), (COMPLEX,)) for name in "_conj view_as_real".split()),
    ("squeeze", torch.squeeze, (x(1, 3), 0)),
    ("_reshape_alias", aten._reshape_alias, (x(3, 3), [9], [1])),
    ("_to_copy", lambda a: a.to(torch.complex128), (x(3, 3),)),
    ("as_strided_scatter", aten.as_strided_scatter, (x(3, 3), x(2), [2], [1], 3)),
    ("avg_pool2d", F.avg_pool2d, (x(1, 3, 4, 4), 2)),
    ("cat", lambda a, b: torch.cat([a, b]), (x(3, 3), x(2, 3))),
    ("stack", lambda a, b: torch.stack([a, b]), (x(3, 3), x(3, 3))),
    ("im2col", F.unfold, (x(1, 1, 4, 4), 2)),
    ("col2im", lambda a: F.fold(a, (3, 3), 2), (x(1, 4, 4),)),
    ("constant_pad_nd", F.pad, (x(3, 3), (2, -1))),
    ("reflection_pad1d", lambda a: F.pad(a, (1, 1), "reflect"), (x(1, 3, 3),)),
    ("replication_pad1d", lambda a: F.pad(a, (1, 1), "replicate"), (x(1, 3, 3),)),
    ("diagonal_scatter", torch.diagonal_scatter, (x(3, 3), x(3))),
    ("expand", lambda a: a.expand(4, 3, 3), (x(3, 3),)),
    ("index_add", torch.index_add, (x(3, 3), 0, INDEX, x(3, 3))),
    ("index_copy", torch.index_copy, (x(4, 3), 0, INDEX, x(3, 3))),
    ("permute", torch.permute, (x(3, 3), (1, 0))),
    ("repeat", lambda a: a.repeat(2, 1), (x(3, 3),)),
    ("roll", torch.roll, (x(3, 3), 1, 0)),
    ("select_scatter", torch.select_scatter, (x(3, 3), x(3), 0, 1)),
    ("slice", lambda a: a[1:], (x(3, 3),)),
    ("slice_scatter", torch.slice_scatter, (x(3, 3), x(2, 3), 0, 1)),
    ("split_with_sizes", aten.split_with_sizes, (x(3, 3), [1, 2])),
    ("unfold", lambda a: a.unfold(0, 2, 1), (x(3, 3),)),
    ("view_as_complex", torch.view_as_complex, (x(3, 2),)),
    ("_fft_r2c", torch.fft.rfft, (x(3, 3),)),
    ("_fft_c2r", torch.fft.irfft, (COMPLEX,)),
    ("_fft_c2c", torch.fft.fft, (COMPLEX,)),
    ("bmm", torch.bmm, (x(1, 3, 3), x(1, 3, 3))),
    ("mv", torch.mv, (x(3, 3), x(3))),
    ("linalg_cross", torch.linalg.cross, (x(3, 3), x(3, 3))),
    ("addmv", torch.addmv, (x(3), x(3, 3), x(3))),
    ("addr", torch.addr, (x(3, 3), x(3), x(3))),
    ("baddbmm", torch.baddbmm, (x(1, 3, 3), x(1, 3, 3), x(1, 3, 3))),
    ("addbmm", torch.addbmm, (x(3, 3), x(1, 3, 3), x(1, 3, 3))),
    ("convolution", F.conv1d, (x(1, 3, 5), x(2, 3, 2), x(2))),
    ("index_select", torch.index_select, (x(3, 3), 0, INDEX)),
    ("gather", torch.gather, (x(3, 3), 0, INDEX[:, None])),
    ("index", lambda a: a[:, INDEX], (x(3, 3),)),
    ("embedding", lambda a: F.embedding(INDEX, a), (x(3, 3),)),
    ("masked_select", torch.masked_select, (x(3, 3), MASK)),
    ("take", torch.take, (x(3, 3), INDEX)),
    ("masked_fill", lambda a, b: a.masked_fill(MASK, b), (x(3, 3), x())),
    ("index_put", lambda a, b: torch.index_put(a, [INDEX], b), (x(4, 3), x(3))),
    ("masked_scatter", lambda a, b: torch.masked_scatter(a, MASK, b), (x(3, 3), x(3, 3))),
    ("scatter", lambda a, b: torch.scatter(a, 0, INDEX[None], b), (x(3, 3), x(3, 3))),
    ("scatter_add", lambda a, b: torch.scatter_add(a, 0, INDEX[None], b), (x(3, 3), x(3, 3))),
    ("index_fill", lambda a, b: torch.index_fill(a, 0, INDEX[:2], b), (x(3, 3), x())),
    ("cholesky_solve", torch.cholesky_solve, (x(3, 3), torch.eye(3, dtype=torch.float64))),
    ("linalg_solve_triangular", SOLVE, (torch.eye(3).double(), x(3, 3))),
    ("_linalg_solve_ex", torch.linalg.solve, (x(3, 3), x(3, 3))),
    ("where", lambda a, b: torch.where(MASK, a, b), (x(3, 3), x(3, 3))),
    ("copy", lambda a: torch.zeros(3, 3, dtype=torch.float64).copy_(a), (x(3, 3),)),
    ("fill", lambda a: torch.zeros(3, 3, dtype=torch.float64).fill_(a), (x(),)),
    ("_trilinear", F.bilinear, (x(2, 3), x(2, 3), x(4, 3, 3))),
    ("read", lambda a: torch.zeros(3, 3, dtype=torch.float64).t().copy_(a)[1:].cos(), (x(3, 3),)),
]  # fmt: skip


def taped(function, args):
    tape = Tape()
    with tape:
        result = function(*args)
    return tape, result


def marks(tape, name, given):
    """The marks of what the last operation of a name returns, where each given tensor has a bit."""
    linear = {tape.ref(one): 1 << bit for bit, one in enumerate(given)}
    other, found = {}, None
    for node in tape.nodes:
        ids = [number for _, number in node.inputs]
        result = spread(node, [linear.get(one, 0) for one in ids], [other.get(one, 0) for one in ids])
        if any(linear.get(one, 0) | other.get(one, 0) for one in ids):
            for out in node.outs:
                linear[out], other[out] = result
        if node.name == name:
            found = node.outs[0], result
    return found


@pytest.mark.parametrize(("name", "function", "args"), CALLS, ids=[name for name, *_ in CALLS])
def test_an_operation_is_linear_where_the_table_says_so_and_nowhere_else(name, function, args):
    given = [
        value for value in args if isinstance(value, torch.Tensor) and value.dtype in (torch.float64, torch.complex128)
    ]
    tape, _ = taped(function, args)
    place, (linear, other) = marks(tape, name, given)
    assert linear
    assert not linear & other

    def result(tensors):
        following = iter(tensors)
        again, _ = taped(function, [next(following) if any(value is one for one in given) else value for value in args])
        return again.values[place].to(torch.complex128)

    base = result(given)
    for bit in range(len(given)):
        moved = [
            result([one + times * step if at == bit else one for at, one in enumerate(given)]) - base
            for step in [torch.randn_like(given[bit])]
            for times in (1.0, -2.5)
        ]
        assert moved[0].abs().max() > 0
        assert torch.allclose(moved[1], -2.5 * moved[0], rtol=1e-9, atol=1e-9) == bool(linear >> bit & 1)


def test_the_table_has_no_line_without_a_test():
    assert {name for name, *_ in CALLS} == KNOWN


NOT_LINEAR = [
    ("relu", F.relu, (x(3, 3),)),
    ("_softmax", lambda a: a.softmax(-1), (x(3, 3),)),
    ("div", lambda a: torch.div(a, 2.0, rounding_mode="floor"), (x(3, 3),)),
    ("_to_copy", lambda a: a.long(), (x(3, 3),)),
    ("mul", lambda a: a * a, (x(3, 3),)),
    ("reciprocal", lambda a: 1 / a, (x(3, 3),)),
    ("masked_select", lambda a: torch.masked_select(x(3, 3), a > 0), (x(3, 3),)),
    ("native_layer_norm", lambda a: nn.functional.layer_norm(a, (3,)), (x(3, 3),)),
]


@pytest.mark.parametrize(("name", "function", "args"), NOT_LINEAR, ids=[name for name, *_ in NOT_LINEAR])
def test_what_the_table_lacks_is_not_linear(name, function, args):
    tape, _ = taped(function, args)
    assert marks(tape, name, args)[1] == (0, 1)
