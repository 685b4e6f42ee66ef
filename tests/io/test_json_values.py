"""Results as JSON holds them."""

import json
import math
from dataclasses import dataclass

import numpy as np
import torch

from statesize.io.json_values import json_values
from statesize.measurement.statistics import Interval


@dataclass(frozen=True)
class Result:
    name: str
    share: float
    parts: tuple[object, ...]


def test_a_result_is_its_fields_and_what_is_not_finite_is_none():
    parts = (np.array([1.0, math.inf]), torch.tensor([[2, 3]]), {"at": Interval(0.5)}, Interval(1.0, 0.5, 1.5), True)
    document = json_values({"result": Result("a", math.nan, parts)})
    intervals = {"at": {"mean": 0.5, "interval": None}}, {"mean": 1.0, "interval": [0.5, 1.5]}
    assert document == {"result": {"name": "a", "share": None, "parts": [[1.0, None], [[2, 3]], *intervals, True]}}
    assert json.loads(json.dumps(document, allow_nan=False)) == document
