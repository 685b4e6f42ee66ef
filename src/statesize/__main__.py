"""`python -m statesize` is `statesize`."""

import sys

from statesize.cli import main

if __name__ == "__main__":
    sys.exit(main())
