"""Labels hold what really depends on what: each position is changed, and what changes by it is compared."""

import pytest
import torch
from torch.nn import functional as F

from statesize.adapters.trace.labels import Labels, own
from statesize.adapters.trace.tape import Tape

LENGTH, WIDTH = 7, 4
WEIGHTS = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)).double()
MASK = torch.ones(LENGTH, LENGTH).triu(1).bool()


def attention(x):
    return (x @ x.mT).masked_fill(MASK, -torch.inf).softmax(-1) @ x


def loop(x):
    state, rows = x[:, 0] * 0, torch.empty_like(x)
    for step in range(LENGTH):
        state = state * 0.5 + x[:, step] @ WEIGHTS
        rows[:, step] = state
    return rows


def solved(x):
    return torch.linalg.solve_triangular((x @ x.mT).tril(-1) + torch.eye(LENGTH).double(), x, upper=False)


def blocks(x):
    return F.pad(x, (0, 0, 0, 1)).unflatten(1, (2, 4)).cumsum(2).flatten(1, 2)[:, :LENGTH]


# Of a function, whether labels are exact for what it returns and what they say it reads.
FUNCTIONS = [
    lambda x: F.layer_norm(x @ WEIGHTS, (WIDTH,)).sigmoid(),
    attention,
    loop,
    solved,
    blocks,
    lambda x: x.cumsum(1) / x.exp().sum(-1, keepdim=True),
    lambda x: F.conv1d(F.pad(x.mT, (2, 0)), WEIGHTS[:, :1, None].expand(-1, 1, 3), groups=WIDTH).mT,
    lambda x: F.conv1d(x.mT, WEIGHTS[:, :, None].expand(-1, -1, 2), dilation=2, padding=2)[..., :LENGTH].mT,
    lambda x: torch.lerp(x, x.roll(1, 1), 0.3),
    lambda x: torch.where(MASK[:, :WIDTH], x, x.flip(1)),
    lambda x: F.pad(x, (0, 0, 3, 0)).unfold(1, 4, 1).sum(-1),
    lambda x: torch.stack([x[:, :-1].repeat_interleave(2, 1)[:, :LENGTH], x], -1).sum(-1),
    lambda x: torch.einsum("bld,ij,blj->bli", x, WEIGHTS, x),
    lambda x: x.index_add(1, torch.tensor([3, 5]), x[:, :2]),
    lambda x: torch.zeros_like(x).scatter(1, torch.arange(LENGTH).flip(0)[None, :, None].expand(1, -1, WIDTH), x),
]  # fmt: skip


def traced(function, x):
    tape = Tape()
    with tape:
        result = function(x)
    output = tape.ref(result)
    labels = Labels(tape, LENGTH, {tape.ref(x): own(x.shape, 1, LENGTH)})
    return labels, tape.ref(x), output


@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_labels_are_the_first_and_last_position_that_change_an_entry(number):
    function, x = FUNCTIONS[number], torch.randn(1, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    labels, _, result = traced(function, x)
    changed = torch.autograd.functional.jacobian(function, x).abs().amax((3, 5)) > 1e-12  # (1, L, C, L)
    at = torch.arange(LENGTH)
    last = (changed * (at + 1)).amax(-1)
    first = (changed * (LENGTH - at)).amax(-1)
    assert torch.equal(labels.of[result].last.long(), last)
    assert torch.equal(labels.of[result].first.long(), first)


def test_what_is_not_known_depends_on_everything():
    labels, _, result = traced(
        lambda x: torch.fft.fft(x, dim=1).real + torch.linalg.svdvals(x).sum(), torch.randn(1, LENGTH, WIDTH).double()
    )
    assert bool((labels.of[result].last == LENGTH).all())
    assert bool((labels.of[result].first == LENGTH).all())
    assert {node.name for node, one in labels.relations.items() if not one.is_exact} >= {"_linalg_svd"}


def test_choices_are_taken_as_the_run_took_them():
    x = torch.randn(1, LENGTH, WIDTH).double()
    labels, _, result = traced(lambda x: x.gather(1, x.argsort(1)), x)
    assert bool((labels.of[result].first == LENGTH).all())
    taken = Labels(labels.tape, LENGTH, {labels.tape.ref(x): own(x.shape, 1, LENGTH)}, labels)
    assert torch.equal(taken.of[result].last.long(), x.argsort(1) + 1)
