"""Random small layers: T of every head equals the definition written beside each, or the layer is refused."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from campaigns.layers.campaign import Campaign, Draw, difference, outcome
from campaigns.layers.written import WIDTH, Written

ROOT = Path(__file__).parents[2]


def test_blocks_are_measured_as_defined() -> None:
    found = Campaign(seed=19)
    found.run(range(1, 12, 2))
    assert not found.findings, "\n".join(map(str, found.findings))
    assert found.measured == {"gated block": 6}


def test_another_definition_is_noticed() -> None:
    draw = Draw.blocks(1, 0)
    assert outcome(draw)[1] == []
    layer = draw.model.layers[0]
    right = layer.definition

    def one_entry_off(hidden: np.ndarray) -> tuple[np.ndarray, ...]:
        several = right(hidden)
        for T in several:
            T[-1, -1, 0] += 1e-5
        return several

    layer.definition = one_entry_off
    _, (problem, *_) = outcome(draw)
    assert "off its definition" in problem


def test_channels_are_compared_in_any_order_each_once() -> None:
    T = np.random.default_rng(0).standard_normal((3, 5, 5))
    assert difference(T[[2, 0, 1]], T) == 0
    assert difference(T[[0, 0, 1]], T) > 0.1
    assert difference(T[:2], T) == float("inf")


def layer_of(number: int) -> Written:
    (layer,) = Draw.written(number).model.layers
    assert isinstance(layer, Written)
    return layer


@pytest.mark.parametrize("number", range(0, 90, 3))
def test_the_definition_of_each_mixing_is_what_its_code_does(number: int) -> None:
    layer, generator = copy.deepcopy(layer_of(number)).double(), torch.Generator().manual_seed(number)
    for part in (layer.mixing, layer.second, layer.short, layer.behind):
        if part is None or not part.definition(torch.ones(2, WIDTH, dtype=torch.float64)).any():
            continue
        source, values = (
            torch.rand(1, 9, width, generator=generator).double() + 0.1 for width in (WIDTH, len(set(part.reads)))
        )
        with torch.no_grad():
            mixed = part(source, 2 * values) - part(source, values)
            expected = torch.einsum("cij,jc->ic", part.definition(source[0]), values[0][:, part.reads])
        torch.testing.assert_close(mixed[0], expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_layers_are_measured_as_defined_or_refused() -> None:
    found = Campaign(seed=19)
    found.run(range(0, 20, 2))
    assert not found.findings, "\n".join(map(str, found.findings))
    # Nothing that has a T is refused among these.
    assert found.measured.total() == sum(Draw.written(19_000 + number).causal for number in range(10))


def test_a_leak_that_is_measured_is_a_finding() -> None:
    draw = next(draw for draw in map(Draw.written, range(100)) if draw.causal and not outcome(draw)[1])
    _, (problem, *_) = outcome(dataclasses.replace(draw, causal=False))
    assert "is not causal and was measured" in problem


@pytest.mark.parametrize(
    ("seed", "number"),
    [
        pytest.param(20, 4, id="registers before as many texts as tokens"),
        pytest.param(19, 354, id="values by spectra that two mixings share"),
    ],
)
def test_draws_that_were_measured_wrongly_or_failed(seed: int, number: int) -> None:
    assert outcome(Draw.of(seed, number))[1] == []
