"""The study of regimes as a command."""

from __future__ import annotations

from statesize.lab.studies.study import GridStudy

REGIMES = GridStudy(
    name="regimes",
    help="Train mixers with equal state sizes on harder and harder tasks: which fill their state, which leave it idle.",
    examples=("statesize study regimes --config grid.toml --ray auto",),
)
