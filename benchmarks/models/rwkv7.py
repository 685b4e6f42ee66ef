"""A trained RWKV-7 of bytes in rwkv.cpp's format: `python -m benchmarks.models.rwkv7 FILE.bin LOGITS.bin`.

Both are test files of github.com/RWKV/rwkv.cpp: tiny-rwkv-7v0-834K-FP32.bin and expected-logits-7v0-834K.bin, the
logits after the bytes `"in`.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import statesize as ss
from benchmarks.models.making import SEQUENCES, Subject, loss, put_on_record, require
from statesize.models.load import LoadedModel, load_model
from statesize.texts import bundled
from statesize.texts.tokens import AnyTokenizer

READ = ("receptance", "key", "value")
DOCUMENT_END = 0
"""The byte that ended documents in training: its embedding has moved, while those of bytes that no text has are 0."""


class Memory(nn.Module):
    """S_t = S_{t−1} Diag(w_t) − S_{t−1} κ_t (a_t κ_t)ᵀ + v_t k_tᵀ, read by r_t; one head."""

    kind = "rwkv7"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.multiplicity = self.width = width

    def forward(self, given: Tensor) -> Tensor:
        """What is read, step by step."""
        return self.mixed_values(given)[:, 0]

    def values(self, given: Tensor) -> Tensor:
        """What T acts on, (sequence, head, position, channel)."""
        return given[:, None, :, : self.width]

    def mixed_values(self, given: Tensor) -> Tensor:
        """What T makes of it, in the same shape; the truncation test replaces it."""
        values, query, key, decay, removed, rate = given.split(self.width, -1)
        columns = (one[..., None].unbind(1) for one in (values, query, removed))
        rows = (one[..., None, :].unbind(1) for one in (key, decay, -removed * rate))
        state, outputs = given.new_zeros(len(given), self.width, self.width), list[Tensor]()
        # Few operations per step: a search of the model runs them dozens of times.
        for v, r, removing, k, w, replaced in zip(*columns, *rows, strict=True):
            seen = state @ removing
            state = torch.baddbmm(torch.baddbmm(state * w, seen, replaced), v, k)
            outputs.append(state @ r)
        return torch.stack(outputs, 1)[:, None, ..., 0]

    def operator(self, given: Tensor) -> ss.Recurrence:
        """What one value channel passes through."""
        _, query, key, decay, removed, rate = given[:, None].split(self.width, -1)
        return ss.Recurrence.diagonal_plus_rank_one(decay, removed * rate, -removed, key, query)


class Shift(nn.Module):
    """The token before, in place of each.

    A module of its own: what mixes between modules has to be searched for, by hundreds of runs of all that is around.
    """

    kind = "token shift"

    def forward(self, hidden: Tensor) -> Tensor:
        """The hidden states, a position later."""
        return functional.pad(hidden, (0, 0, 1, -1))

    def operator(self, hidden: Tensor) -> ss.Convolution:
        """One state per channel."""
        return ss.Convolution(hidden.new_tensor([0.0, 1.0]).expand(len(hidden), hidden.shape[-1], 2), hidden.shape[1])


def mixed(
    w: Mapping[str, Tensor], shift: Shift, memory: Memory, hidden: Tensor, first: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Time mixing of RWKV-7 (Peng et al. 2025, arXiv 2503.14456) with one head, and the values of the first layer."""
    change = shift(hidden) - hidden
    own = dict(zip("rwkvag", (hidden + change * row for row in w["x_rwkvag"].flatten(1)), strict=True))

    def low_rank(name: str, activation: Callable[[Tensor], Tensor] = lambda inner: inner) -> Tensor:
        return activation(own[name] @ w[f"{name}1"].mT) @ w[f"{name}2"].mT

    query, key, values = (own[one[0]] @ w[f"{one}_weight"].mT for one in READ)
    decay = torch.exp(-(torch.e**-0.5) * torch.sigmoid(w["w0"].flatten() + low_rank("w", torch.tanh)))
    rate = torch.sigmoid(w["a0"].flatten() + low_rank("a"))
    if first is None:
        first = values
    else:
        values = values + (first - values) * torch.sigmoid(w["v0"].flatten() + low_rank("v"))
    removed = functional.normalize(key * w["k_k"].flatten(), dim=-1)
    key = key * (1 + (rate - 1) * w["k_a"].flatten())
    read = memory(torch.cat([values, query, key, decay, removed, rate], -1))
    read = functional.layer_norm(read, read.shape[-1:], w["ln_x_weight"], w["ln_x_bias"], 64e-5)
    read = read + (query * key * w["r_k"].flatten()).sum(-1, keepdim=True) * values
    return (read * low_rank("g", torch.sigmoid)) @ w["output_weight"].mT, first


class Model(nn.Module):
    """RWKV-7 of bytes, with the weights under rwkv.cpp's names."""

    def __init__(self, weights: dict[str, Tensor], width: int, layers: int) -> None:
        super().__init__()
        self.w = nn.ParameterDict({name.replace(".", "_"): one for name, one in weights.items()})
        self.memories = nn.ModuleList(Memory(width) for _ in range(layers))
        self.shifts = nn.ModuleList(Shift() for _ in range(2 * layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next byte."""

        def norm(hidden: Tensor, name: str) -> Tensor:
            return functional.layer_norm(hidden, hidden.shape[-1:], self.w[f"{name}_weight"], self.w[f"{name}_bias"])

        hidden, first = norm(self.w["emb_weight"][tokens], "blocks_0_ln0"), None
        for at, memory in enumerate(self.memories):
            block = f"blocks_{at}_"
            own = {name.removeprefix(f"{block}att_"): one for name, one in self.w.items() if name.startswith(block)}
            more, first = mixed(own, self.shifts[2 * at], memory, norm(hidden, f"{block}ln1"), first)
            hidden = hidden + more
            inner = norm(hidden, f"{block}ln2")
            inner = inner + (self.shifts[2 * at + 1](inner) - inner) * own[f"{block}ffn_x_k"].flatten()
            inner = (inner @ own[f"{block}ffn_key_weight"].mT).relu() ** 2
            hidden = hidden + inner @ own[f"{block}ffn_value_weight"].mT
        return norm(hidden, "ln_out") @ self.w["head_weight"].mT


def read(path: Path) -> tuple[tuple[int, int], dict[str, Tensor]]:
    """Width and layers, and the weights by their names, of a file of rwkv.cpp in float32."""
    content, at, weights = path.read_bytes(), 24, dict[str, Tensor]()
    _, _, _, width, layers, kind = struct.unpack("<6I", content[:at])
    require(kind == 0, "the file is not in float32")
    while at < len(content):
        rank, characters, _ = struct.unpack("<3I", content[at : at + 12])
        shape = struct.unpack(f"<{rank}I", content[at + 12 : at + 12 + 4 * rank])[::-1]
        at += 12 + 4 * rank + characters
        name = content[at - characters : at].decode()
        count = int(np.prod(shape))
        weights[name] = torch.from_numpy(np.frombuffer(content, "<f4", count, at).reshape(shape).copy())
        at += 4 * count
    return (width, layers), weights


class Bytes:
    """Encodes a text as its bytes."""

    bos_token_id = None

    def __call__(self, text: str, **options: object) -> SimpleNamespace:
        """The bytes of a text as `input_ids`."""
        return SimpleNamespace(input_ids=list(text.encode()))


def loaded(name: str) -> LoadedModel:
    """A file of rwkv.cpp, FILE.bin, or whatever else statesize loads."""
    path = Path(name)
    if path.suffix != ".bin":
        return load_model(name)
    (width, layers), weights = read(path)
    tokenizer = cast("AnyTokenizer", Bytes())
    return LoadedModel(path.stem, Model(weights, width, layers).eval(), tokenizer, {"kind": "rwkv.cpp"})


def fresh(weights: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """Weights of the same shapes: matrices drawn with variance 1/inputs, all others as trained ones have on average."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(one.shape, generator=generator) / one.shape[-1] ** 0.5
        if one.squeeze().ndim == 2 and "x_" not in name and "r_k" not in name
        else one.mean().expand_as(one).clone()
        for name, one in weights.items()
    }


def layers_of(model: Model) -> list[str]:
    """The mixers that are measured."""
    return [f"memories.{at}" for at in range(len(model.memories))]


def texts(length: int) -> Tensor:
    """The beginnings of the first bundled documents in bytes."""
    return torch.tensor([list(text.encode()[:length]) for text in bundled.documents()[:SEQUENCES]])


if __name__ == "__main__":
    path, expected = Path(sys.argv[1]), torch.from_numpy(np.fromfile(sys.argv[2], "<f4"))
    (width, layers), weights = read(path)
    model = Model(weights, width, layers).eval()
    untrained = Model(fresh(weights, width), width, layers).eval()
    with torch.inference_mode():
        apart = float((model(torch.tensor([list(b'"in')]))[0, -1] - expected).abs().max() / expected.abs().max())
    require(apart < 1e-5, f"logits differ from those of rwkv.cpp by {apart:.0e}")
    check = (
        f"logits after '\"in' as rwkv.cpp's own to {apart:.0e} of the largest; {loss(model, texts(256)):.2f} nats per "
        f"byte over the 256 bytes of the record, {loss(untrained, texts(256)):.2f} with untrained weights; its token "
        "shifts, of one position, are not measured"
    )
    put_on_record(
        Subject(
            "rwkv7", "RWKV-7 834K", "test files of RWKV/rwkv.cpp", "MIT", check, "bytes of prose", model, untrained,
            texts, [path], layers=layers_of(model),
        )
    )  # fmt: skip
