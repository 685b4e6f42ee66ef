"""The study of zoology's figure 2 as a command."""

from __future__ import annotations

from statesize.lab.studies.study import GridStudy

ZOOLOGY = GridStudy(
    name="zoology",
    help="Train models on zoology's recall as its figure 2 does: best accuracy of four rates, ESS, published accuracy.",
    examples=("statesize study zoology --preset paper --ray auto",),
)
