"""A grid of eight runs that take a moment, and rows of runs that were never done."""

import dataclasses
import json
from functools import partial

from statesize.lab.studies.engine.grid import Grid, RunMeasurements

GRID = Grid(
    tasks=[{"name": "mqar", "pairs": [2, 3], "length": 12, "vocabulary_size": 12, "held_out_sequences": 8}],
    model={
        **{"mixer": ["la", "gla"], "key_size": 2, "width": 8, "heads": 2, "layers": 1},
        **{"mlp_factor": 1, "convolution_size": 2, "decay_bias": 0.0},
    },
    training={"steps": 6, "batch_size": 4, "rate": [6e-3, 1.2e-2], "weight_decay": 0.0},
    measuring=RunMeasurements(every=4, sequences=2),
)


def run_rows(settings, ends, **columns):
    """The rows of a run: `ends` has the columns of each step."""
    name, model = json.dumps(settings), settings["model"]
    common = {
        **{"run": name, "settings": name, "status": "done", "message": "", "task": "mqar", "kv": 16, "length": 64},
        **{"chance": 1 / 16, "mixer": model["mixer"], "key_size": model.get("key_size", 16), "heads": 2, "width": 32},
        **{"rate": 6e-3, "seed": settings["training"]["seed"], "intervention": "none", "norm": 1.0},
    }
    common["state_size"] = float(common["key_size"])
    return [common | columns | {"step": step, "final": step == max(ends)} | own for step, own in ends.items()]


def judging(study, **changes):
    """How a study judges rows, by its claim with these changes."""
    return partial(study.conclude, claim=dataclasses.replace(study.claim, **changes))


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
