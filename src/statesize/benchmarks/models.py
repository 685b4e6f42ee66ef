"""One layer of published models at full width against the definition: seconds, memory, and the whole model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from statesize.adapters import Captured, capture
from statesize.adapters.observation import Units
from statesize.benchmarks.cases import (
    child_process,
    dense_seconds,
    document,
    forget_peak,
    midpoints,
    now,
    peak_resident_bytes,
    resident_bytes,
)
from statesize.measurement.measurement import measure
from statesize.measurement.settings import check_settings
from statesize.operators import Operator
from statesize.profiling.measuring import measure_mixer
from statesize.profiling.work import plan_work

_VOCABULARY = 1024
# Beyond the tokens that models reserve for the beginning, the end and padding.
_FIRST_TOKEN = 8

_TINY: dict[str, dict[str, Any]] = {
    "falcon_mamba": {"hidden_size": 32, "intermediate_size": 64, "time_step_rank": 4},
    "llama_3": {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2},
    "mamba_2": {"hidden_size": 32, "num_heads": 8, "head_dim": 8, "state_size": 32},
    "qwen3_next": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 16,
    },
}


@dataclass(frozen=True)
class ModelCase:
    """A model with one layer, and the outputs that are measured."""

    name: str  # as `--case` takes it
    model: str  # the published model of that shape
    model_type: str  # its family in transformers
    shape: dict[str, Any]  # its configuration, apart from the number of layers and the vocabulary, which no mixer sees
    layers: int  # layers of this kind in the whole model

    def make(self) -> nn.Module:
        """The model with weights at the initialisation that was published with it, from a fixed seed."""
        from transformers import AutoConfig, AutoModel

        options = {"vocab_size": _VOCABULARY, "num_hidden_layers": 1, "pad_token_id": None, **self.shape}
        config = AutoConfig.for_model(self.model_type, **options)  # pyright: ignore[reportUnknownMemberType]
        with torch.random.fork_rng([]):  # pyright: ignore[reportUnknownMemberType]
            torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]
            model = cast("nn.Module", AutoModel.from_config(config))
            if "mamba" in self.model_type:
                _as_published(model)
        return model.eval()


def _as_published(model: nn.Module) -> None:
    """What transformers draws otherwise than Mamba's own code does."""
    # Its projections are some ten times larger, and its A of Mamba-2 goes up to the number of heads; nearly all would
    # be forgotten within a few tokens.
    for name, module in cast("Iterator[tuple[str, nn.Module]]", model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(("in_proj", "x_proj")):
            module.reset_parameters()
        if type(module).__name__ == "Mamba2Mixer":
            nn.init.uniform_(cast("nn.Parameter", module.A_log), 1, 16).data.log_()


def random_tokens(length: int) -> torch.Tensor:
    """One sequence of tokens, (1, L) int64, from a fixed seed."""
    return torch.randint(_FIRST_TOKEN, _VOCABULARY, (1, length), generator=torch.Generator().manual_seed(0))


def model_cases(quick: bool) -> tuple[ModelCase, ...]:
    """All cases, in the order of the table."""
    # Softmax attention gets bounds on relative counts: their threshold differs between positions, while what
    # makes matrices of full rank fast is shared among positions.
    full = (
        ModelCase(
            "falcon_mamba",
            "Falcon-Mamba-7B",
            "falcon_mamba",
            {"hidden_size": 4096, "intermediate_size": 8192, "state_size": 16, "time_step_rank": 256},
            layers=64,
        ),
        ModelCase(
            "llama_3",
            "Llama-3-8B",
            "llama",
            {
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "max_position_embeddings": 8192,
                "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            },
            layers=32,
        ),
        ModelCase(
            "mamba_2",
            "Mamba-2-2.7B",
            "mamba2",
            {"hidden_size": 2560, "num_heads": 80, "head_dim": 64, "state_size": 128, "n_groups": 1},
            layers=64,
        ),
        ModelCase(
            "qwen3_next",
            "Qwen3-Next-80B-A3B, gated delta rule",
            "qwen3_next",
            # A dense feed-forward part instead of 512 experts, which hold 6 GB and mix no positions.
            {"hidden_size": 2048, "layer_types": ["linear_attention"], "mlp_only_layers": [0]},
            layers=36,
        ),
    )
    if not quick:
        return full
    return tuple(replace(case, shape=case.shape | _TINY[case.name]) for case in full)


_LENGTH, _QUICK_LENGTH = 2048, 192
_WARM_LENGTH = 16
# Heads or channels, and positions of each, at which the definition is timed.
_DENSE_UNITS, _DENSE_POSITIONS = 2, 8


def benchmark_models(
    cases: tuple[ModelCase, ...],
    length: int | None = None,
    quick: bool = False,
    on_row: Callable[[dict[str, Any]], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure a layer of each model in a process of its own; the JSON document of rows and the machine."""
    rows: list[dict[str, Any]] = []
    for case in cases:
        with child_process() as pool:
            row = pool.submit(
                measure_layer, case, length or (_QUICK_LENGTH if quick else _LENGTH), torch.get_num_threads()
            ).result()
        rows.append(row)
        on_row(row)
    return document(rows, "transformers")


def measure_layer(case: ModelCase, length: int, threads: int) -> dict[str, Any]:
    """The row of a case: what counts and entropy at all positions of a layer took, in a process of its own."""
    torch.set_num_threads(threads)
    model = case.make()
    settings = check_settings(channels="all")
    # Once in the life of a process: files are imported, kernels compiled, buffers made.
    list(capture(model, random_tokens(_WARM_LENGTH)))
    before = resident_bytes()
    forget_peak()
    start, processor = now(), time.process_time()
    (item,) = capture(model, random_tokens(length))
    capturing, processor = now() - start, time.process_time() - processor
    work = plan_work(item, 0, length, length, settings)
    measure(item.units_operator(slice(0, 1)), positions=[1], engine=work.engine)
    watched = _Watched(item)
    start, resumed = now(), time.process_time()
    dataset = measure_mixer(watched.item, 0, work, settings)
    measuring, processor = now() - start, processor + time.process_time() - resumed
    peak = peak_resident_bytes() - before
    dense = _dense_seconds(item)
    spectra, total = item.units * (length - 1), capturing + measuring
    return {
        "case": case.name,
        "model": case.model,  # the published model of that shape
        "layers": case.layers,  # layers of this kind in the whole model
        "kind": item.kind,  # what the mixer is
        "engine": dataset.attrs["engine"],  # what measured it
        "length": length,  # L
        "units": item.units,  # heads or channels
        "spectra": spectra,  # positions 1 … L − 1 of all of them
        "tolerances": settings.tolerances,  # absolute τ at which counts were measured
        "relative_tolerances": settings.relative_tolerances,  # ρ at which counts were measured
        "count_accuracy": settings.count_accuracy_at(length),  # how far off these may be, as a share
        "seconds": total,  # from the model and its tokens to the record of a profile
        "capture_seconds": capturing,  # of these, for running the model and taking what makes its operators
        "operator_seconds": watched.seconds,  # for building the operators, block by block
        "measuring_seconds": measuring - watched.seconds,  # for their spectra and all else
        "processor_seconds": processor,  # of all threads, for all of it
        "microseconds_per_spectrum": 1e6 * total / spectra,  # `seconds` for each of the spectra
        "dense_seconds": dense,  # what the definition would take for all of the spectra, with T there for nothing
        "dense_units": min(_DENSE_UNITS, item.units),  # at how many of the units it was timed, then scaled to all
        "dense_positions": len(midpoints(length, _DENSE_POSITIONS)),  # at how many positions of each
        "ratio": dense / total,  # `dense_seconds` over `seconds`
        "peak_bytes": max(0, peak),  # the most memory held, above what the model and the libraries held before
        "model_bytes": sum(weight.nbytes for weight in model.parameters()),
        "model_seconds": case.layers * total,  # `seconds` for all layers of this kind of the whole model
        "faithfulness": dataset["faithfulness"].item(),  # largest relative difference of T u from the model's y
    }


class _Watched:
    """A mixer with the seconds that building its operators took."""

    def __init__(self, item: Captured) -> None:
        self.seconds = 0.0
        self.item = replace(item, units_operator=partial(self._build, item.units_operator))

    def _build(self, build: Callable[[Units], Operator], units: Units) -> Operator:
        start = now()
        operator = build(units)
        self.seconds += now() - start
        return operator


def _dense_seconds(item: Captured) -> float:
    """Seconds of the definition for all units, from a sample of units and positions."""
    count = min(_DENSE_UNITS, item.units)
    sample = item.units_operator(torch.linspace(0, item.units - 1, count).round().long())
    positions = midpoints(sample.length, _DENSE_POSITIONS)
    taken = [dense_seconds(sample[0, k].to(torch.float64).dense(), positions) for k in range(count)]
    return statistics.fmean(taken) * item.units
