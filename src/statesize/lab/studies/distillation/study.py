"""The study of distillation as a command."""

from __future__ import annotations

from statesize.lab.studies.study import GridStudy

DISTILLATION = GridStudy(
    name="distillation",
    help="Teach students with less state: does the teacher's ESS predict their error, and what does a byte buy?",
    examples=("statesize study distillation --dry-run",),
)
