"""Random small layers: T of every head equals the definition written beside each, or the layer is refused.

One draw again: `python -m campaigns.layers --first NUMBER --draws 1`.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from campaigns.layers.campaign import CAUSAL, NOT_CAUSAL, Campaign, Draw, difference, outcome

ROOT = Path(__file__).parents[2]


def test_layers_of_every_kind_are_measured_as_defined_or_refused() -> None:
    found = Campaign(seed=19)
    found.run(range(1, 32, 2))
    assert not found.findings, "\n".join(map(str, found.findings))
    assert found.measured.keys() == CAUSAL.keys()
    assert {refusal.split(",")[0] for refusal in found.refused} >= NOT_CAUSAL.keys()
    # Nothing that has a T is refused among these.
    assert found.measured.total() == sum(Draw.of(19, number).causal for number in range(16))


def test_another_definition_is_noticed() -> None:
    draws = (Draw.of(1, number) for number in range(1000))
    draw = next(draw for draw in draws if draw.kind == "attention" and len(draw.model.layers) == 1)
    assert outcome(draw).problems == ()
    layer = draw.model.layers[0]
    right = layer.definition

    def one_entry_off(hidden: np.ndarray) -> np.ndarray:
        T = right(hidden)
        T[-1, -1, 0] += 1e-5
        return T

    layer.definition = one_entry_off
    (problem,) = outcome(draw).problems
    assert "off its definition" in problem


def test_a_measured_layer_that_is_not_causal_is_noticed() -> None:
    draws = (Draw.of(1, number) for number in range(1000))
    draw = next(draw for draw in draws if draw.causal)
    (problem, *_) = outcome(dataclasses.replace(draw, causal=False)).problems
    assert "is not causal and was measured" in problem


def test_channels_are_compared_in_any_order_each_once() -> None:
    T = np.random.default_rng(0).standard_normal((3, 5, 5))
    assert difference(T[[2, 0, 1]], T) == 0
    assert difference(T[[0, 0, 1]], T) > 0.1
    assert difference(T[:2], T) == float("inf")


@pytest.mark.slow
def test_the_command_writes_what_it_found(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    command = [sys.executable, "-m", "campaigns.layers", "--draws", "6", "--output", str(path)]
    subprocess.run(command, cwd=ROOT, check=True)
    document = json.loads(path.read_text())
    counted = sum(document["measured"].values()) + sum(document["refused"].values())
    assert counted == document["draws"] == 6
    assert document["wrong"] == 0
