"""Runs the study: python -m experiments.crossover --preset smoke."""

from experiments import run
from experiments.crossover import Crossover

run(Crossover.kind)
