"""The study of initialisation as a command."""

from __future__ import annotations

from statesize.lab.studies.study import GridStudy

INITIALISATION = GridStudy(
    name="initialisation",
    help="Start decays of S6 and GLA-S6 with and without the normalisation factor: ESS and accuracy as states grow.",
    examples=("statesize study initialisation --preset smoke",),
)
