"""Random small layers: T of every head equals the definition written beside each, or the layer is refused.

One draw again: `python -m campaigns.layers --first NUMBER --draws 1`.
"""

from pathlib import Path

import numpy as np

from campaigns.layers.campaign import Campaign, Draw, difference, outcome

ROOT = Path(__file__).parents[2]


def test_blocks_are_measured_as_defined() -> None:
    found = Campaign(seed=19)
    found.run(range(1, 24, 2))
    assert not found.findings, "\n".join(map(str, found.findings))
    assert found.measured == {"gated block": 12}


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
