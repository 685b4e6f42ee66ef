"""Runs the study: python -m experiments.crossover --preset smoke."""

from experiments import run

run("crossover")
