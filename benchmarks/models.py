"""Layers of published models; the same as `statesize bench models`, whose options it takes."""

import sys

from statesize.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "models", *sys.argv[1:]]))
