"""The same again, and with other threads: `python -m campaigns.determinism [--threads 1 2 4] [--output FILE]`.

The bundled models and small random ones of several families are profiled twice with the same threads, and once with
each other number; a small study is done twice, in one process and in several. Exits with 1 if the same threads give
anything but the same bits, or others anything outside the bounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

MODELS = ("sa", "la", "wla", "gla", "llama", "gemma2", "mamba", "mamba2", "qwen3_next", "rwkv", "recurrent_gemma")


def main() -> int:
    """Compare, print and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    from benchmarks.cases import versions
    from statesize.io.machine import machine

    warnings.simplefilter("ignore")
    found = {"same threads": profiles(given.models, given.threads[:1] * 2)}
    found["other threads"] = profiles(given.models, given.threads)
    found["runs of a study, again"], found["runs of a study, in processes"] = studies(max(given.threads))
    for name, verdicts in found.items():
        print(f"{name:32} {dict(verdicts)}", flush=True)
    document = {
        "schema": 1,
        "threads": given.threads,
        "models": given.models,
        "compared": {name: dict(verdicts) for name, verdicts in found.items()},
        "machine": machine(),
        "versions": versions(),
    }
    if given.output is not None:
        given.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    kept = [set(verdicts) <= {"identical"} for name, verdicts in found.items() if name != "other threads"]
    return 0 if all(kept) and "different" not in found["other threads"] else 1


def profiles(models: Sequence[str], threads: Sequence[int]) -> Counter[str]:
    """Verdicts over layers, of profiles with each number of threads against those with the first."""
    import torch
    from oracles.comparing import compare_profiles

    import statesize as ss
    from campaigns.soak.calls import subjects

    verdicts = Counter[str]()
    for name in models:
        made: list[ss.Profile] = []
        for number in threads:
            with torch.random.fork_rng(devices=[]):
                model = subjects()[name]()
            vocabulary = next(part.num_embeddings for part in model.modules() if isinstance(part, torch.nn.Embedding))
            length = 128 if vocabulary > 64 else 48
            generator = torch.Generator().manual_seed(0)
            ids = torch.randint(1, min(vocabulary, 1000) - 2, (2, length), generator=generator)
            torch.set_num_threads(number)
            made.append(ss.profile(model, ids))
        for other in made[1:]:
            verdicts.update(one.verdict for one in compare_profiles(made[0], other) if one.part != "tokens")
    return verdicts


def studies(workers: int) -> tuple[Counter[str], Counter[str]]:
    """Verdicts over the runs of a small study: done again in this process, and in several processes."""
    from oracles.comparing import compare_rows
    from small_studies import GRID

    from statesize.lab.studies.grid.executors import run_here, run_in_processes
    from statesize.lab.studies.grid.settings import parse_settings

    runs = parse_settings(GRID, "correlation").runs
    tables = [
        sorted((row for outcome in do(runs) for row in outcome.rows), key=lambda row: (row["run"], row["step"]))
        for do in (run_here, run_here, partial(run_in_processes, workers=workers))
    ]
    again, spread = ([one.verdict for one in compare_rows(tables[0], table)] for table in tables[1:])
    return Counter(again), Counter(spread)


if __name__ == "__main__":
    sys.exit(main())
