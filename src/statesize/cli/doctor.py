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
_EXTRAS = ("ray", "datasets", "accelerate", "lightning", "torchmetrics", "gguf", "flash-linear-attention")


def doctor(*, printing: Printing = TEXT) -> None:
    """Print versions, devices and extras, and compare what "auto" measures of three operators with the definition.

    Args:
        printing: What is printed.

    Raises:
        EngineError: If an answer lies outside its stated bound.
    """
    import torch

    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.errors import EngineError
    from statesize.io.machine import machine
    from statesize.measurement.measurement import measure

    gpus = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    devices = ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
    versions, checks = installed(*_PACKAGES, *_EXTRAS), list[dict[str, str | bool]]()
    for name, operator in _operators().items():
        found, exact = (measure(operator, engine=engine) for engine in ("auto", "dense"))
        lower, upper, entropy, bound = _tensors(found.lower, found.upper, found.entropy, found.entropy_bound)
        least, most, expected, slack = _tensors(exact.lower, exact.upper, exact.entropy, exact.entropy_bound)
        inside = (lower <= most) & (least <= upper)
        near = (entropy - expected).abs() <= bound + slack
        checks.append({"operator": name, "engine": found.engine, "right": bool(inside.all() and near.all())})
    names = ("python", "statesize", *_PACKAGES, *_EXTRAS)
    if printing.json:
        facts = {"machine": machine(), "threads": torch.get_num_threads(), "devices": devices}
        print_json({"schema": SCHEMA, **facts, "versions": {one: versions.get(one) for one in names}, "checks": checks})
    else:
        print(f"machine  {machine()}\nthreads  {torch.get_num_threads()}\ndevices  {', '.join(devices)}\n")
        print("\n".join(f"{one:24} {versions.get(one, 'not installed')}" for one in names), end="\n\n")
        for check in checks:
            verdict = "within its bounds" if check["right"] else "OUTSIDE ITS BOUNDS"
            print(f"{check['operator']}, measured by {check['engine']}: {verdict} of the definition")
    wrong = ", ".join(f"{check['operator']} by {check['engine']}" for check in checks if not check["right"])
    if wrong:
        raise EngineError(f"{wrong} contradict the definition; reinstall torch and numba")


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
