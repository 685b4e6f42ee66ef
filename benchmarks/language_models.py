"""Recipes of docs/language-models.md: `python -m benchmarks.language_models [--length 512] [--output FILE] [MODEL …]`.

Two layers of each model, at full width with random weights, are profiled over one sequence; time and memory
of the whole model follow. CPU time of one thread. Each model needs up to 4 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from benchmarks.cases import child_process, forget_peak, made, now, peak_resident_bytes, random_tokens
from statesize.io.machine import machine
from statesize.measurement.settings import Channels
from statesize.profiling.run import profile

# Layers of the model that is run in the place of the whole one, and its vocabulary, which no mixer sees.
_DEPTH, _VOCABULARY = 2, 1024
_WARM_LENGTH = 16
# What a result holds of each spectrum.
_RESULT_BYTES = 52


@dataclass(frozen=True)
class Recipe:
    """A published model, and how it is profiled.

    Attributes:
        model: Its id on the hub.
        model_type: Its family in transformers.
        layers: Its layers.
        vocabulary: Its tokens.
        shape: The rest of its configuration.
        dtype: Of its weights as they are stored.
        channels: Heads or channels that are measured of each layer.
    """

    model: str
    model_type: str
    layers: int
    vocabulary: int
    shape: dict[str, Any]
    dtype: torch.dtype
    channels: Channels

    @property
    def command(self) -> str:
        """What profiles it."""
        return f"statesize profile {self.model} --jsonl FILE --channels {self.channels} --output FOLDER"

    def make(self, layers: int = _DEPTH, **changes: Any) -> nn.Module:
        """The model with fewer layers and tokens, and weights at its published initialisation, from a fixed seed.

        Args:
            layers: How many layers.
            **changes: To its configuration.

        Returns:
            A module in eval mode, in the dtype of the published weights.
        """
        with torch.random.fork_rng([]):  # pyright: ignore[reportUnknownMemberType]
            torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]
            model = self._model(layers, _VOCABULARY, changes)
        return model.to(self.dtype).eval()

    def parameters(self) -> int:
        """Parameters of the whole model, counted without holding them.

        Returns:
            How many.
        """
        with torch.device("meta"):
            model = self._model(self.layers, self.vocabulary, {})
        return sum(weight.numel() for weight in model.parameters())

    def _model(self, layers: int, vocabulary: int, changes: dict[str, Any]) -> nn.Module:
        from transformers import AutoConfig, AutoModelForCausalLM

        given = {"vocab_size": vocabulary, "num_hidden_layers": layers, "pad_token_id": None, **self.shape, **changes}
        config = AutoConfig.for_model(self.model_type, **given)  # pyright: ignore[reportUnknownMemberType]
        return cast("nn.Module", AutoModelForCausalLM.from_config(config))


_SMALL_TRANSFORMER = {"hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 32}
_GROUPED = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
RECIPES = (
    Recipe(
        "tiiuae/falcon-mamba-7b",
        "falcon_mamba",
        64,
        65024,
        {
            "hidden_size": 4096,
            "intermediate_size": 8192,
            "state_size": 16,
            "time_step_rank": 256,
            "tie_word_embeddings": False,
        },
        torch.bfloat16,
        64,
    ),
    Recipe(
        "state-spaces/mamba-2.8b-hf",
        "mamba",
        64,
        50280,
        {"hidden_size": 2560, "intermediate_size": 5120, "state_size": 16, "time_step_rank": 160},
        torch.float32,
        64,
    ),
    Recipe("EleutherAI/pythia-2.8b", "gpt_neox", 32, 50304, _SMALL_TRANSFORMER, torch.float16, 8),
    Recipe("microsoft/phi-2", "phi", 32, 51200, _SMALL_TRANSFORMER, torch.float16, 8),
    Recipe("mistralai/Mistral-7B-v0.1", "mistral", 32, 32000, {**_GROUPED, "sliding_window": 4096}, torch.bfloat16, 8),
    Recipe("meta-llama/Meta-Llama-3-8B", "llama", 32, 128256, _GROUPED, torch.bfloat16, 8),
)


@dataclass(frozen=True)
class Prediction:
    """What one sequence of a recipe takes on the whole model.

    Attributes:
        model: Id of the model.
        command: What profiles it.
        parameters: Of the whole model.
        length: Tokens.
        kind: What its mixers are.
        units: Heads or channels of each.
        measured: How many of them are measured.
        engine: What measures them.
        seconds: Predicted, on one thread.
        memory: Predicted peak in bytes, weights and libraries included.
        results: Bytes of results.
        run_seconds: Of a profile of the reduced model.
        faithfulness: The largest relative difference between T u and what the reduced model itself passed on.
    """

    model: str
    command: str
    parameters: int
    length: int
    kind: str
    units: int
    measured: int
    engine: str
    seconds: float
    memory: int
    results: int
    run_seconds: float
    faithfulness: float


def predictions(recipes: Iterable[Recipe], length: int) -> Iterator[Prediction]:
    """What each recipe takes, each in a process of its own.

    Args:
        recipes: The recipes.
        length: Tokens of the sequence.

    Yields:
        One prediction a recipe.
    """
    for recipe in recipes:
        with child_process() as pool:
            yield pool.submit(predict, recipe, length, torch.get_num_threads()).result()


def predict(recipe: Recipe, length: int, threads: int, **changes: Any) -> Prediction:
    """Profile two layers of a model, and say what all of them would take.

    Args:
        recipe: The recipe.
        length: Tokens of the sequence.
        threads: Of torch.
        **changes: To the configuration of the two layers.

    Returns:
        The prediction.
    """
    torch.set_num_threads(threads)
    model = recipe.make(**changes)
    held = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    ids = random_tokens(length)[0]
    given: dict[str, Any] = {"channels": recipe.channels}
    profile(model, [ids[:_WARM_LENGTH]], **given)
    forget_peak()
    start = now()
    found = profile(model, [ids], **given)
    run_seconds = now() - start
    parameters = recipe.parameters()
    rows = found.summary_rows()
    first = rows[0]
    results = recipe.layers * first["measured"] * (length - 1) * _RESULT_BYTES
    weights = parameters * recipe.dtype.itemsize
    return Prediction(
        model=recipe.model,
        command=recipe.command,
        parameters=parameters,
        length=length,
        kind=first["kind"],
        units=first["units"],
        measured=first["measured"],
        engine=found.mixer(0).attrs["engine"],
        seconds=recipe.layers / _DEPTH * run_seconds,
        memory=peak_resident_bytes() - held + weights,
        results=results,
        run_seconds=run_seconds,
        faithfulness=max(row["faithfulness"] for row in rows),
    )


def main() -> None:
    """Print one row per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [recipe for recipe in RECIPES if not options.models or recipe.model in options.models]
    rows = []
    print("| model | parameters | measured | seconds | memory | results | two layers |")
    for row in predictions(chosen, options.length):
        rows.append(asdict(row))
        cells = (
            row.model,
            f"{row.parameters / 1e9:.2f} B",
            f"{row.measured} of {row.units}",
            f"{row.seconds:.0f}",
            f"{row.memory / 1e9:.1f} GB",
            f"{row.results / 1e6:.0f} MB",
            f"{row.run_seconds:.2f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)
    if options.output:
        document = {"rows": rows, "machine": machine(), "made": made()}
        options.output.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
