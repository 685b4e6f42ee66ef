"""`statesize doctor`: what is installed, and whether it computes what it should."""

from __future__ import annotations

from typing import Any

from statesize.cli.shared.printing import TEXT, Printing
from statesize.version import installed

_CORE = ("torch", "numpy", "scipy", "numba", "pandas", "pyarrow", "xarray", "safetensors", "transformers",
         "tokenizers", "cyclopts", "rich", "altair", "vl-convert-python")  # fmt: skip
_OPTIONAL = {
    "ray": "studies and profiles on a cluster",
    "datasets": "texts of the Hugging Face hub",
    "accelerate": "the Trainer of transformers",
    "lightning": "callbacks of Lightning",
    "torchmetrics": "metrics of torchmetrics",
}


def doctor(*, printing: Printing = TEXT) -> None:
    """Print versions, devices and optional packages, and check every engine against the dense definition.

    The check takes a few seconds. It fails, with exit code 1, if an answer lies outside its stated bound.

    Args:
        printing: What is printed.

    Raises:
        EngineError: If an engine contradicts the definition.
    """
    import torch

    from statesize.benchmarks.engines import self_check
    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.errors import EngineError
    from statesize.io.machine import machine

    versions = installed(*_CORE, *_OPTIONAL)
    with printing.bars() as bars:
        bar = bars.begin("checking the engines")
        checks = self_check(lambda done, total, detail: bar.update(done, total, detail, line=False))
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "devices": _devices(),
        "packages": {name: versions.get(name) for name in ("statesize", *_CORE)},
        "optional": {name: versions.get(name) for name in _OPTIONAL},
        "checks": checks,
    }
    if printing.json:
        print_json(document)
    else:
        _print(document)
    wrong = [f"{check['engine']} on a {check['operator']}" for check in checks if not check["right"]]
    if wrong:
        raise EngineError(f"{len(wrong)} checks contradict the definition, first {wrong[0]}; reinstall torch and numba")


def _devices() -> list[str]:
    import torch

    gpus = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def _print(document: dict[str, Any]) -> None:
    import sys

    from statesize.cli.shared.table import print_table

    print(f"machine  {document['machine']}\nthreads  {document['threads']}\ndevices  {', '.join(document['devices'])}")
    print(f"python   {sys.version.split()[0]}\n")
    packages = [(name, version or "missing", "") for name, version in document["packages"].items()]
    packages += [(name, version or "-", _OPTIONAL[name]) for name, version in document["optional"].items()]
    print_table(("package", "version", "for"), packages, left=3, notes=())
    cells = [
        (check["operator"], check["engine"], f"{check['checked']}", "yes" if check["right"] else "NO")
        for check in document["checks"]
    ]
    right = sum(check["right"] for check in document["checks"])
    note = f"{right} of {len(cells)} checks against torch.linalg.svdvals of each H_i are within the stated bounds."
    print_table(("operator", "engine", "answers", "right"), cells, left=2, notes=(note,))
