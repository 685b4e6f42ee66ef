"""What an import costs beyond torch's own: `python -m benchmarks.import_time`; `import statesize` may take 0.3 s.

Each import runs in a process of its own, after `import torch` where it needs torch, and takes the processor time of
that process; medians of interleaved rounds, after one that is not counted and leaves compiled files behind.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

LIMIT, ROUNDS = 0.3, 11
HEAVY = ("numba", "transformers", "pandas", "pyarrow", "xarray", "altair", "scipy", "rich", "ray")
AFTER_TORCH = (
    "import statesize",
    *(f"import statesize; statesize.{name}" for name in ("measure", "capture", "Profile", "profile", "lab.training")),
)
_CHILD = """
import contextlib, io, json, sys, time
if sys.argv[1] == "True":
    import torch
before, start = set(sys.modules), time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    exec(sys.argv[2])
seconds = time.process_time() - start
print(json.dumps([seconds, sorted({name.partition(".")[0] for name in set(sys.modules) - before})]))
"""


def once(code: str) -> tuple[float, list[str]]:
    """The processor seconds of an import in a new process, and the packages that it brought."""
    command = [sys.executable, "-c", _CHILD, str(code in AFTER_TORCH), code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    seconds, packages = json.loads(done.stdout)
    return seconds, packages


def main() -> int:
    """Print a line for each import; 1 where that of statesize takes more than LIMIT."""
    codes = ("import torch", *AFTER_TORCH, "from statesize.cli import main; main(['--help'])")
    rounds = [{code: once(code) for code in codes} for _ in range(ROUNDS + 1)]
    medians = {code: statistics.median(found[code][0] for found in rounds[1:]) for code in codes}
    for code, seconds in medians.items():
        brought = ", ".join(package for package in HEAVY if package in rounds[0][code][1])
        sys.stdout.write(f"{code:55} {seconds:6.3f} s {'beyond torch' * (code in AFTER_TORCH):12}  {brought}\n")
    return int(medians["import statesize"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
