"""Maintainers' campaigns against the package: random calls and layers, faults, and mutations.

They run from the root of a checkout, for minutes to hours, as `python -m campaigns.fuzz`. Small models and grids come
from tests/.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
