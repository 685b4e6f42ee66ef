"""Runs the study: python -m experiments.rank --preset smoke."""

from experiments import run

run("rank")
