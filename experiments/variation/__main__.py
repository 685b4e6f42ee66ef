"""Runs the study: python -m experiments.variation --preset smoke."""

from experiments import run

run("variation")
