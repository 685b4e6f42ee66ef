"""Studies beyond the paper, each plugged in as a user's package would be."""

import sys

from statesize.cli import main


def run(study: str) -> None:
    """Run a study with the arguments of its command line."""
    sys.exit(main(["lab", "study", study, *sys.argv[1:]]))
