"""Runs the study: python -m experiments.rank --preset smoke."""

from experiments import run
from experiments.rank import Rank

run(Rank.kind)
