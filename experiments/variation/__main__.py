"""Runs the study: python -m experiments.variation --preset smoke."""

import sys

import experiments.variation
from statesize.cli import main

if __name__ == "__main__":
    sys.exit(main(["lab", "study", experiments.variation.NAME, *sys.argv[1:]]))
