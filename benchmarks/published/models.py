"""What does ESS show of published models? `python -m benchmarks.published.models FILE.json MODEL [...]`.

The record is results/two-models/published_models.json. MODEL is a GGUF file or a folder of a decoder of transformers
with softmax attention; a model that is in the file is not run again. A text has 256 tokens, H_i is cut in its middle,
and all heads are measured. Prose is documentation of Python, a chat the same as questions and answers, code that of
the standard library of this Python; digests of all tokens are in the record. For growth, contexts of several
lengths come before the same 512 tokens. No claim is tested.
"""

from __future__ import annotations

import argparse
import heapq
import inspect
import statistics
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from benchmarks.cases import document
from benchmarks.prose import held_out
from benchmarks.published.attention import Layer, Noting, entropies, singular_values
from benchmarks.recorded import finish, of_each, prose, weights_of
from statesize.models.load import LoadedModel, load_model
from statesize.texts.inputs import begun_excerpts, tokens_sha256
from statesize.texts.tokens import AnyTokenizer, beginning_id, encode, special_ids
from statesize.truncation.blocks import PastBlock

TEXTS, TOKENS, CUT = 8, 256, 128
MODULES = (argparse, heapq, statistics, textwrap)
"""Whose source is the code that is read."""
TOLERANCES = (0.1, 0.01, 0.001)
"""Relative to σ₁."""
OF_HEADS = ("ess", "ess_without_sink", "sink_share", "sink_is_first")
"""What is kept of each head."""
LENGTHS, FUTURE, EXCERPTS = (256, 512, 1024, 2048), 512, 4


def main(path: Path, models: list[str]) -> None:
    """Run the models that are not there, and write the document after each."""
    finish(path, of_each(models, one_model), lambda rows: document(rows, "transformers"))


def one_model(name: str) -> dict[str, Any]:
    """Everything that is measured of a model."""
    loaded, start = load_model(name), time.process_time()
    texts = texts_of(loaded.tokenizer)  # pyright: ignore[reportArgumentType]
    row = {
        **weights_of(loaded),
        "texts": {kind: tokens_sha256(own) for kind, own in texts.items()},
        **of_texts(loaded.model, texts),
        "growth": growth(loaded),
    }
    return row | {"seconds": round(time.process_time() - start, 1)}


def texts_of(tokenizer: AnyTokenizer) -> dict[str, list[Tensor]]:
    """TEXTS pieces of TOKENS tokens of each kind, with the token with which texts begin."""
    documents = held_out()
    written = {
        "prose": "\n\n".join(documents),
        "code": "\n\n".join(map(inspect.getsource, MODULES)),
        "chat": "\n".join(map(exchange, documents)),
    }
    texts = {
        kind: begun_excerpts([torch.tensor(encode(tokenizer, text))], TOKENS, TEXTS, tokenizer)
        for kind, text in written.items()
    }
    special, _ = special_ids(tokenizer)
    known = torch.tensor(sorted({int(token) for own in texts.values() for ids in own for token in ids} - special))
    generator = torch.Generator().manual_seed(0)
    drawn = [known[torch.randint(len(known), (TOKENS,), generator=generator)] for _ in range(TEXTS)]
    # In place of all but what stands first in the others.
    return texts | {"random tokens": [torch.cat([texts["prose"][0][:1], ids[1:]]) for ids in drawn]}


def exchange(text: str) -> str:
    """The paragraphs of a document as questions with their first sentence and answers with the rest."""
    parts = (" ".join(paragraph.split()).partition(". ") for paragraph in text.split("\n\n"))
    return "\n".join(f"User: What about this? {first}.\nAssistant: {rest}" for first, _, rest in parts if rest)


def of_texts(model: nn.Module, texts: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
    """By kind of text: means over heads in each text, and means of each head over the texts; and of random weights."""
    noting, fresh = Noting(model), Noting(random_weights(model))
    runs = {kind: (noting, own) for kind, own in texts.items()} | {"random weights": (fresh, texts["prose"])}
    kinds, heads = dict[str, dict[str, list[float]]](), dict[str, dict[str, list[float]]]()
    for kind, (run, own) in runs.items():
        measured = [of_text(run, ids) for ids in own]
        kinds[kind] = {name: [mean_of(one[name]) for one in measured] for name in measured[0]}
        each = {name: torch.stack([one[name] for one in measured]).mean(0).tolist() for name in OF_HEADS}
        heads[kind] = {name: [float(f"{value:.4g}") for value in values] for name, values in each.items()}
        print(kind, flush=True)
    layers: int = cast("Any", model).config.num_hidden_layers
    return {"layers": layers, "difference": noting.difference, "kinds": kinds, "heads": heads}


def random_weights(model: nn.Module) -> nn.Module:
    """A model of the same configuration as it is before training."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(cast("Any", model).config).float().eval()


def mean_of(values: Tensor) -> float:
    """A mean to five digits."""
    return float(f"{float(values.mean()):.5g}")


@torch.inference_mode()
def of_text(noting: Noting, ids: Tensor) -> dict[str, Tensor]:
    """What is measured of each head, (heads of all layers,), and the nats per token past the cut."""
    layers = noting.layers(ids[None], compare=True)
    measured = [of_layer(layer) for layer in layers]
    logits = noting.model(ids[None], use_cache=False).logits[0, CUT:-1].float()
    found = {name: torch.cat([one[name] for one in measured]) for name in measured[0]}
    return found | {"loss": nn.functional.cross_entropy(logits, ids[CUT + 1 :], reduction="none")}


def of_layer(layer: Layer) -> dict[str, Tensor]:
    """ESS with and without the column that gets most, counts, the norm, and that column's share, (heads,) each."""
    weights = layer.weights[0, :, CUT:].double()
    shares = weights.mean(1)
    H, sink = weights[..., :CUT], shares.argmax(-1, keepdim=True)
    block = PastBlock(H)
    sinkless = PastBlock(H.masked_fill((torch.arange(CUT) == sink)[:, None], 0))
    relative = block.values / block.values[..., :1]
    return {
        "ess": block.entropy,
        "ess_without_sink": sinkless.entropy,
        "norm": block.norm,
        "sink_share": shares.amax(-1),
        "sink_is_first": (sink[:, 0] == 0).double(),
        **{f"relative_{tolerance:g}": (relative > tolerance).double().sum(-1) for tolerance in TOLERANCES},
    }


@torch.inference_mode()
def growth(loaded: LoadedModel) -> dict[str, Any]:
    """Entropy-ESS after contexts of several lengths, before the same tokens: of each piece, and of each head."""
    pieces, noting = (
        begun_excerpts([prose(loaded.tokenizer)], LENGTHS[-1] + FUTURE, EXCERPTS, loaded.tokenizer),
        Noting(loaded.model),
    )
    begin, rows = beginning_id(loaded.tokenizer), list[dict[str, Any]]()
    for context in LENGTHS:
        ess: list[Tensor] = []
        for piece in pieces:
            read = piece[-context - FUTURE :]
            if begin is not None:
                read = torch.cat([torch.tensor([begin]), read[1:]])
            layers = noting.layers(read[None], compare=piece is pieces[0], rows=FUTURE)
            blocks = (layer.weights[0, :, :, :context].double() for layer in layers)
            ess.append(torch.cat([entropies(singular_values(H)) for H in blocks]))
            print("growth", context, flush=True)
        rows.append({"context": context, "ess": [mean_of(one) for one in ess]})
        rows[-1]["heads"] = [float(f"{value:.4g}") for value in torch.stack(ess).mean(0).tolist()]
    return {"future": FUTURE, "texts": tokens_sha256(pieces), "difference": noting.difference, "rows": rows}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
