"""The study of regularisation as a command."""

from __future__ import annotations

from statesize.lab.studies.study import GridStudy

REGULARISATION = GridStudy(
    name="regularisation",
    help="Keep decays near 1, or ESS near a target, by a term in the loss: what accuracy and ESS of gated mixers gain.",
    examples=("statesize study regularisation --preset smoke",),
)
