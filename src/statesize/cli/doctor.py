"""`statesize doctor`: what is installed, and whether it computes what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from statesize.cli.shared.printing import TEXT, Printing
from statesize.version import installed

if TYPE_CHECKING:
    from torch import Tensor

    from statesize.operators import Operator

_PACKAGES = ("torch", "numpy", "scipy", "numba", "pandas", "pyarrow", "xarray", "safetensors", "transformers",
             "tokenizers", "cyclopts", "rich", "altair", "vl-convert-python")  # fmt: skip
_EXTRAS = ("ray", "datasets", "accelerate", "lightning", "gguf", "flash-linear-attention")


def doctor(*, printing: Printing = TEXT) -> None:
    """Print versions, devices and extras, and compare what "auto" measures of three operators with the definition.

    Args:
        printing: What is printed.

    Raises:
        EngineError: If an answer lies outside its stated bound.
    """
    import torch

    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.cli.shared.table import print_table
    from statesize.errors import EngineError
    from statesize.io.machine import machine
    from statesize.measurement.measurement import measure
    from statesize.report.result_page import PageTable

    gpus = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    devices = ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
    versions, checks = installed(*_PACKAGES, *_EXTRAS), list[dict[str, str | bool]]()
    for name, operator in _operators().items():
        fast, exact = (measure(operator, engine=engine) for engine in ("auto", "dense"))
        lower, upper, entropy, bound = _tensors(fast.lower, fast.upper, fast.entropy, fast.entropy_bound)
        least, most, expected, slack = _tensors(exact.lower, exact.upper, exact.entropy, exact.entropy_bound)
        inside = (lower <= most) & (least <= upper)
        near = (entropy - expected).abs() <= bound + slack
        checks.append({"operator": name, "engine": fast.engine, "right": bool(inside.all() and near.all())})
    found = {one: versions.get(one) for one in ("python", "statesize", *_PACKAGES, *_EXTRAS)}
    facts = {"machine": machine(), "threads": torch.get_num_threads(), "devices": devices}
    if printing.json:
        print_json({"schema": SCHEMA, **facts, "versions": found, "checks": checks})
    else:
        right = sum(bool(check["right"]) for check in checks)
        print(f"{right} of {len(checks)} operators are measured within their error bounds of the definition.\n")
        rows = (facts | {"devices": ", ".join(devices)} | found).items()
        print_table(PageTable("", ("part", "found"), [(name, value or "not installed") for name, value in rows]))
        print()
        verdict = {True: "within its bounds of the definition", False: "OUTSIDE ITS BOUNDS of the definition"}
        cells = [(str(one["operator"]), str(one["engine"]), verdict[bool(one["right"])]) for one in checks]
        print_table(PageTable("", ("operator", "measured by", "answer"), cells))
    wrong = ", ".join(f"{check['operator']} by {check['engine']}" for check in checks if not check["right"])
    if wrong:
        raise EngineError(f"{wrong} contradict the definition; reinstall torch and numba")
    printing.next("models", why="which models can be measured")


def _tensors(*outputs: Tensor | None) -> tuple[Tensor, ...]:
    # Counts and entropies are what is measured by default.
    return cast("tuple[Tensor, ...]", outputs)


def _operators() -> dict[str, Operator]:
    import torch

    from statesize.operators import Convolution, Recurrence, SoftmaxAttention

    generator = torch.Generator().manual_seed(0)
    query, key, gate = torch.randn(3, 320, 16, generator=generator, dtype=torch.float64)
    kernel = gate[:, 0] * 0.99 ** torch.arange(320)
    return {
        "recurrence": Recurrence(gate.add(2).sigmoid(), key, query),
        "convolution": Convolution(kernel, 320),
        "softmax attention": SoftmaxAttention(query, key, 0.25),
    }
