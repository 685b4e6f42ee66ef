"""The joint ESS of random groups against the definition: singular values of the readouts on top of each other."""

import random
from dataclasses import replace

import pytest
import torch

import statesize as ss
from statesize.errors import InputError
from statesize.measurement.measurement import Measurement
from statesize.operators import BlockDense, Dense, Operator, Recurrence, Shared, SoftmaxAttention, StateSpace
from statesize.operators.stepped import Stepped
from statesize.spectra.all_cuts.all_cuts import AllCutsEngine
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import with_readouts
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


def definition(shared: Shared) -> list[torch.Tensor]:
    """σ at every position from 1 on."""
    stack = shared.dense().flatten(-3, -2)
    return [torch.linalg.svdvals(stack[shared.outputs * i :, :i]) for i in range(1, shared.length)]


def check(shared: Shared, found: Measurement) -> None:
    """Counts between their bounds, entropies and norms within theirs."""
    for place, sigma in enumerate(definition(shared)):
        delta = float(found.error_bound[place]) + 1e-13 * float(sigma[0])
        for thresholds, lower, upper in (
            (found.tolerances, found.lower, found.upper),
            (found.relative_tolerances * sigma[0], found.relative_lower, found.relative_upper),
        ):
            for tau, least, most in zip(thresholds, lower[place], upper[place], strict=True):
                assert int((sigma > tau + 2 * delta).sum()) <= most
                assert int((sigma > tau - 2 * delta).sum()) >= least
        entropy = float(ss.metrics.entropy_ess(sigma)) if float(sigma[0]) > delta else 0.0
        assert abs(entropy - float(found.entropy[place])) <= float(found.entropy_bound[place]) + 1e-9 * entropy
        assert float(found.norm[place]) == pytest.approx(float(sigma.norm()), rel=1e-9, abs=delta)
        assert found.ceiling[place] <= len(sigma)


def compare(seed: int) -> None:
    shared = random_group(seed)
    check(shared, ss.measure(shared, (1e-3,), (1e-1, 1e-3)))
    held, cut = with_readouts(shared, make_cut(shared.length))
    compare_with_definition(AllCutsEngine(halvings=3), held, cut)


@pytest.mark.few(3)
@pytest.mark.parametrize("seed", range(7))
def test_random_groups(seed: int) -> None:
    compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(14, 221))
def test_many_random_groups(seed: int) -> None:
    compare(seed)


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


def test_windows_of_readouts_of_one_state() -> None:
    shared = random_group(3)
    found = ss.measure(shared, past=5, future=2, outputs=("values",))
    stack, r = shared.dense().flatten(-3, -2), shared.outputs
    for place, i in enumerate(found.positions.tolist()):
        sigma = torch.linalg.svdvals(stack[r * i : r * (i + 2), i - 5 : i])
        kept = min(len(sigma), found.values.shape[-1])
        torch.testing.assert_close(found.values[place, :kept], sigma[:kept], rtol=0, atol=1e-12)


def test_state_spaces_of_other_states_count_each_and_those_of_one_state_count_once():
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    A, B, C = normal(2, 2, 2) / 2, normal(2, 2, 1), normal(2, 1, 2)
    apart = Shared(StateSpace(A, B, C, length=20))
    together = Shared(StateSpace(A[:1], B[:1], C, length=20))
    assert [int(one.state_size().max()) for one in (apart, together)] == [4, 2]
    found = [ss.measure(one, relative_tolerances=[1e-9], positions=[10]) for one in (apart, together)]
    assert [one.relative_count.item() for one in found] == [4, 2]
    assert [one.ceiling.item() for one in found] == [4, 2]


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
