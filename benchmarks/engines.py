"""Each engine against the definition; the same as `statesize bench engines`, whose options it takes."""

import sys

from statesize.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "engines", *sys.argv[1:]]))
