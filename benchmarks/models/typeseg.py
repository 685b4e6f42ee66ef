"""The Mamba tagger of bytes of typeseg 0.2.7: `python -m benchmarks.models.typeseg FOLDER`.

FOLDER also has onnxruntime, which runs the same model as the package exports it, for the check. Each of six blocks
reads the text forwards and backwards with the same weights; the two scans are measured as mixers of their own, the
backward one over the reversed text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import statesize as ss
from benchmarks.models.making import LENGTHS, SEQUENCES, Subject, put_on_record, require
from statesize.texts import bundled

LENGTH_OF_CHECK = 1536


class Scan(nn.Module):
    """Selective scan (Gu & Dao 2023, arXiv 2312.00752): x_t = exp(Δ_t A) x_{t−1} + Δ_t B_t u_t, y_t = C_t x_t."""

    kind = "mamba"

    def __init__(self, channels: int, states: int) -> None:
        super().__init__()
        self.channels, self.states, self.multiplicity = channels, states, 1
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(channels, 1))

    def _parts(self, given: Tensor) -> tuple[Tensor, ...]:
        values, step, B, C = given.split([self.channels, self.channels, self.states, self.states], -1)
        step = step[..., None]  # (sequence, position, channel, 1)
        return values, torch.exp(-step * self.A_log.exp()), step * B[:, :, None], C[:, :, None]

    def forward(self, given: Tensor) -> Tensor:
        """What is read, step by step."""
        values, decay, B, C = self._parts(given)
        # One operation per step: a search of the model runs it dozens of times.
        driven, states = B * values[..., None], list[Tensor]()
        state = torch.zeros_like(driven[:, 0])
        for step, new in zip(decay.unbind(1), driven.unbind(1), strict=True):
            state = torch.addcmul(new, step, state)
            states.append(state)
        return (torch.stack(states, 1) * C).sum(-1)

    def operator(self, given: Tensor) -> ss.Recurrence:
        """One recurrence per channel."""
        _, decay, B, C = self._parts(given)
        return ss.Recurrence(*(part.transpose(1, 2) for part in (decay, B, C.expand_as(B))))


class Convolution(nn.Conv1d):
    """A convolution over the positions around each.

    A module of its own: what mixes between modules has to be searched for, by hundreds of runs of all that is around.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Channels (S, channels, L), as many positions as before."""
        (taps,) = self.kernel_size
        before = (taps - 1) // 2
        return super().forward(functional.pad(input, (before, taps - 1 - before)))


class Block(nn.Module):
    """A block of the tagger."""

    def __init__(self, width: int, channels: int, states: int, rank: int, taps: int) -> None:
        super().__init__()
        self.rank = rank
        self.norm, self.inner = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 2 * channels)
        self.convolution = Convolution(channels, channels, taps, groups=channels)
        self.chosen, self.step = nn.Linear(channels, rank + 2 * states), nn.Linear(rank, channels)
        self.forwards, self.backwards = Scan(channels, states), Scan(channels, states)
        self.D, self.output = nn.Parameter(torch.ones(channels)), nn.Linear(channels, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """The hidden states with what the block adds."""
        values, gate = self.inner(self.norm(hidden)).chunk(2, -1)
        values = functional.silu(self.convolution(values.mT).mT)
        raw, chosen = self.chosen(values).tensor_split([self.rank], -1)
        given = torch.cat([values, functional.softplus(self.step(raw)) + 1e-4, chosen], -1)
        read = self.forwards(given) + self.backwards(given.flip(1)).flip(1) + 2 * self.D * values
        return hidden + self.output(read * functional.silu(gate))


class Tagger(nn.Module):
    """Bytes to logits of labels."""

    def __init__(self, facts: Mapping[str, int], vocabulary: int, width: int, channels: int, labels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(
            Block(width, channels, facts["d_state"], facts["dt_rank"], facts["d_conv"])
            for _ in range(facts["n_layers"])
        )
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, labels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of each byte's label."""
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(self.norm(hidden))


DENSE = {"Dense_0": "inner", "Dense_1": "chosen", "Dense_2": "step", "Dense_3": "output"}


def state_dict(weights: Mapping[str, np.ndarray[Any, Any]], layers: int) -> dict[str, Tensor]:
    """The package's weights under the names above."""

    def of(name: str) -> Tensor:
        return torch.from_numpy(np.array(weights[name], np.float32))

    found = {"embedding.weight": of("Embed_0__embedding")}
    parts = [("norm", "LayerNorm_0", "scale"), ("head", "Dense_0", "kernel")]
    for at in range(layers):
        block, own = f"CheckpointMambaBlock1D_{at}__", f"blocks.{at}."
        parts += [(f"{own}norm", f"{block}LayerNorm_0", "scale")]
        parts += [(f"{own}{name}", f"{block}{dense}", "kernel") for dense, name in DENSE.items()]
        found[f"{own}convolution.weight"] = of(f"{block}Conv_0__kernel").permute(2, 1, 0)
        found[f"{own}convolution.bias"] = of(f"{block}Conv_0__bias")
        found[f"{own}D"] = of(f"{block}D")
        for scan in ("forwards", "backwards"):
            found[f"{own}{scan}.A_log"] = of(f"{block}A_log")
    for name, theirs, weight in parts:
        found[f"{name}.weight"], found[f"{name}.bias"] = of(f"{theirs}__{weight}").movedim(0, -1), of(f"{theirs}__bias")
    return found


def tokens(text: str, vocabulary: int) -> Tensor:
    """Bytes as the tagger reads them: what is not printable ASCII is one token."""
    allowed = {*range(0x20, 0x7F), 0x09, 0x0A, 0x0D}
    raw = torch.tensor([byte if byte in allowed else 0xA4 for byte in text.encode()])
    return raw if vocabulary == 257 else raw.clamp(max=128)


def texts(length: int, vocabulary: int) -> Tensor:
    """The beginnings of the first bundled documents in bytes; few, as T of all channels is compared with the layer."""
    count = SEQUENCES // (4 if length == LENGTHS[-1] else 2)
    return torch.stack([tokens(text, vocabulary)[:length] for text in bundled.documents()[:count]])


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    data = folder / "typeseg" / "data"
    manifest = json.loads((data / "manifest.json").read_text("utf-8"))
    path = data / manifest["mamba"]["file"]
    weights = dict(np.load(path))
    (vocabulary, width), channels = weights["Embed_0__embedding"].shape, len(weights["CheckpointMambaBlock1D_0__D"])
    shape = (manifest["mamba"], vocabulary, width, channels, weights["Dense_0__bias"].shape[0])
    torch.manual_seed(0)
    untrained, model = Tagger(*shape).eval(), Tagger(*shape).eval()
    model.load_state_dict(state_dict(weights, manifest["mamba"]["n_layers"]))

    sys.path.append(str(folder))
    from onnxruntime import InferenceSession  # pyright: ignore[reportMissingImports]

    written = {"python": Path(__file__).read_text("utf-8"), "json": json.dumps(manifest, indent=1)}
    written["markdown"] = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    session, apart, right = InferenceSession(path.with_suffix(".onnx")), 0.0, list[str]()
    for label, text in written.items():
        read = tokens(text, vocabulary)[:LENGTH_OF_CHECK]
        with torch.inference_mode():
            logits = model(read[None])[0]
        theirs = torch.from_numpy(session.run(None, {"ids": read.numpy()})[0])
        apart = max(apart, float((logits - theirs).abs().max() / theirs.abs().max()))
        share = (logits.argmax(-1) == manifest["labels"].index(label)).float().mean()
        right.append(f"{share:.0%} of the bytes of a file of {label}")
    require(apart < 1e-3, f"logits differ from those of the package's ONNX file by {apart:.0e}")
    put_on_record(
        Subject(
            "typeseg", "typeseg Mamba", "typeseg 0.2.7", "Apache-2.0",
            f"logits as those of the package's ONNX file to {apart:.0e} of the largest; named rightly: "
            f"{', '.join(right)}",
            "bytes of prose", model, untrained, lambda length: texts(length, vocabulary), [path],
        )
    )  # fmt: skip
