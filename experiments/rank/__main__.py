"""Runs the study: python -m experiments.rank --preset smoke."""

import sys

import experiments.rank
from statesize.cli import main

if __name__ == "__main__":
    sys.exit(main(["lab", "study", experiments.rank.NAME, *sys.argv[1:]]))
