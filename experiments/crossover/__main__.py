"""Runs the study: python -m experiments.crossover --preset smoke."""

import sys

import experiments.crossover
from statesize.cli import main

if __name__ == "__main__":
    sys.exit(main(["lab", "study", experiments.crossover.NAME, *sys.argv[1:]]))
