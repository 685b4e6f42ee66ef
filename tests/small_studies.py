"""A grid of eight runs that take a moment."""

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
