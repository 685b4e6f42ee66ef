"""The study of correlation as a command."""

from __future__ import annotations

from statesize.lab.studies.study import GridStudy

CORRELATION = GridStudy(
    name="correlation",
    help="Train a grid of small models and correlate their accuracy with ESS/kv and TSS/kv, over all and inside cells.",
    examples=("statesize study correlation --preset smoke",),
)
