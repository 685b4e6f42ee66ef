"""Maintainers' campaigns against the package: random calls and layers, faults, long runs, changes of the code.

They run from the root of a checkout, for minutes to hours: `python -m campaigns.fuzz`, and likewise `layers`, `faults`,
`soak`, `mutation` and `determinism`; `--output` keeps the figures of docs/promises.md. Small models and
grids come from tests/.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
