"""Random groups of readouts of every kind, by every engine, against the definition."""

import random
from dataclasses import replace

import pytest
import torch

import statesize as ss
from statesize.errors import InputError
from statesize.operators import BlockDense, Dense, Operator, Recurrence, Shared, SoftmaxAttention, StateSpace
from statesize.operators.stepped import Stepped
from statesize.spectra.all_cuts.all_cuts import AllCutsEngine
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ORDER, with_readouts
from statesize.spectra.exact.dense import DenseEngine
from statesize.testing import compare_with_definition

KINDS = ("attention", "window", "scalar", "diagonal", "full", "delta", "low rank")


def random_group(seed: int) -> Shared:
    """Readouts of any kind, with 1 to 9 readouts of 2 to 80 positions."""
    chance, g = random.Random(seed), torch.Generator().manual_seed(seed)  # noqa: S311
    kind, r, length, n = KINDS[seed % len(KINDS)], chance.randint(1, 9), chance.randint(2, 80), chance.randint(1, 6)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    key, query = normal(1, length, n), normal(r, length, n)
    if kind in ("attention", "window"):
        window = chance.randint(1, length) if kind == "window" else None
        operator: Operator = SoftmaxAttention(query, key, chance.choice((0.02, 0.5, 3.0)), window)
    elif kind == "low rank":
        operator = Dense((query @ key.mT).tril() * chance.choice((1e-9, 1.0, 1e9)))
    elif kind == "delta":
        unit = key / key.norm(dim=-1, keepdim=True)
        operator = Recurrence.delta_rule(unit, normal(1, length).sigmoid(), query, normal(1, length).sigmoid())
    else:
        shape = {"scalar": (1,), "diagonal": (n,), "full": (n, n)}[kind]
        decay = normal(1, length, *shape)
        operator = Recurrence(decay / n if kind == "full" else decay.sigmoid(), key, query)
    return Shared(operator)


@pytest.mark.parametrize("seed", range(7))
def test_random_groups(seed: int) -> None:
    shared = random_group(seed)
    held, cut = with_readouts(shared, make_cut(shared.length))
    for engine in (*ORDER, AllCutsEngine(halvings=3)):
        if engine.supports(held):
            compare_with_definition(engine, held, cut)


def test_a_group_of_the_length_of_a_text() -> None:
    g = torch.Generator().manual_seed(0)
    query, key = torch.randn(3, 200, 8, generator=g), torch.randn(1, 200, 8, generator=g)
    shared = Shared(Dense(SoftmaxAttention(query, key, 0.5).dense().double()))
    cut = replace(make_cut(200, [1, 40, 100, 150, 160, 199]), readouts=3)
    for halvings in (2, 4, 6):
        compare_with_definition(AllCutsEngine(halvings=halvings), shared, cut)
    assert AllCutsEngine().unsupported_reason(shared, cut, ("counts",)) is None
    assert DenseEngine().footprint(shared, cut) > DenseEngine().footprint(shared, replace(cut, readouts=1))


def test_engines_that_know_one_readout_decline() -> None:
    shared = Shared(Dense(torch.eye(8, dtype=torch.float64)[None]))
    with pytest.raises(ss.errors.EngineError, match="small_state"):
        ss.measure(shared, engine="small_state")


@pytest.mark.parametrize(
    "build",
    [
        lambda x: BlockDense(torch.zeros(2, 4, 2, 4, 2)),
        lambda x: StateSpace(x(2, 3, 3), x(2, 3, 2), x(2, 2, 3), length=4),
        lambda x: Stepped(Recurrence(A=torch.ones(2, 8, 1), B=x(2, 8, 1), C=torch.zeros(2, 8, 1)), steps=2),
    ],
)
def test_readouts_of_several_inputs_or_outputs_are_refused(build):
    with pytest.raises(InputError, match="operator must be of one input and output"):
        Shared(build(torch.ones))
