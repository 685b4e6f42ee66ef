"""Runs the study: python -m experiments.cause --preset smoke."""

from experiments import run

run("cause")
