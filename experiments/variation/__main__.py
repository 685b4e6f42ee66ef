"""Runs the study: python -m experiments.variation --preset smoke."""

from experiments import run
from experiments.variation import Variation

run(Variation.kind)
