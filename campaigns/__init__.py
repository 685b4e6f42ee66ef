"""Maintainers' campaigns against the package: random calls and layers, and faults.

They run from the root of a checkout, for minutes to hours: `python -m campaigns.fuzz`, and likewise `layers` and
`faults`; `--output` keeps what was found. Small models and grids come from tests/.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
