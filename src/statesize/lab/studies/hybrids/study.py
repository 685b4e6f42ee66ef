"""The study of hybrids as a command."""

from __future__ import annotations

from statesize.lab.studies.study import GridStudy

HYBRIDS = GridStudy(
    name="hybrids",
    help="Place one and two attention layers among gated ones in every way: which wins, and does ESS show it early?",
    examples=("statesize study hybrids --preset smoke --json",),
)
