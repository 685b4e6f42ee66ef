"""Profile calls on mixed models in one process: `python -m campaigns.soak [--seconds 3600] [--output FILE]`.

The bundled models and small random ones of many families are profiled in random order with random options; some calls
fail on purpose. Exits with 1 if a hook or a replaced function stays behind, or if
threads, file descriptors or live modules grow.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path


def main() -> int:
    """Call, and print and write what the process held meanwhile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--every", type=float, default=60, help="seconds between looks at the process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    import torch

    from benchmarks.cases import versions
    from campaigns.soak.calls import Soak, slope
    from campaigns.soak.traces import Held
    from statesize.io.machine import machine

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    soak, imported = Soak(given.seed), Held.now()
    soak.warm_up()
    print(f"{'seconds':>8} {'calls':>7} {'MiB':>8} {'threads':>7} {'files':>5} {'modules':>7}", flush=True)

    def tell(so_far: Soak) -> None:
        seconds, calls, held = so_far.samples[-1]
        sizes = f"{held.resident / 2**20:8.1f} {held.threads:7} {held.descriptors:5} {held.modules:7}"
        print(f"{seconds:8.0f} {calls:7} {sizes}", flush=True)

    start = time.process_time()
    soak.run(given.seconds, given.every, tell)
    first, last = soak.samples[0][2], soak.samples[-1][2]
    rate, error = slope(soak.samples)
    document = {
        "schema": 1,
        "seed": given.seed,
        "seconds": round(soak.samples[-1][0]),
        "process_seconds": round(time.process_time() - start),
        "calls": soak.calls,
        "models": len(soak.subjects),
        "answered": dict(sorted(soak.answered.items())),
        "refused": dict(sorted(soak.refused.items())),
        "left": soak.left,
        "imported": asdict(imported),
        "start": asdict(first),
        "end": asdict(last),
        "most_resident": max(held.resident for _, _, held in soak.samples),
        "resident_per_hour": None if rate != rate else [round(rate), round(error)],
        "samples": [{"seconds": round(at), "calls": calls, **asdict(held)} for at, calls, held in soak.samples],
        "machine": machine(),
        "versions": versions(),
    }
    grown = [name for name in ("threads", "descriptors") if getattr(last, name) > getattr(first, name)]
    print(
        f"{document['calls']} calls on {len(soak.subjects)} models; resident memory {first.resident / 2**20:.1f} MiB at"
        f" the start, {last.resident / 2**20:.1f} at the end; left: {len(soak.left)}; grown: {grown or 'nothing'}"
    )
    if given.output is not None:
        given.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if soak.left or grown else 0


if __name__ == "__main__":
    sys.exit(main())
