"""The dilated convolutions of a forecaster's encoder, fracast 0.1.0: `python -m benchmarks.models.fracast FOLDER`.

One block of three taps is used ten times, at dilations 1, 2, 4 … 512. Its T follows from the taps alone, so what is
read does not matter: noise takes the place of a series and of the features of periods that the package adds to it.
Forecasts are not checked, for neither those features nor the head are converted.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import statesize as ss
from benchmarks.models.making import Subject, put_on_record


class Taps(nn.Module):
    """A causal convolution of each channel with itself, at a dilation."""

    kind, multiplicity = "dilated convolution", 1

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, dilation: int) -> None:
        super().__init__()
        self.weight, self.bias, self.dilation = weight, bias, dilation
        self.reach = (weight.shape[-1] - 1) * dilation

    def forward(self, hidden: Tensor) -> Tensor:
        """The convolution."""
        padded = functional.pad(hidden.mT, (self.reach, 0))
        return functional.conv1d(padded, self.weight, self.bias, dilation=self.dilation, groups=len(self.weight)).mT

    def operator(self, hidden: Tensor) -> ss.Convolution:
        """One kernel per channel: the last tap is that of the position itself."""
        kernel = self.weight.new_zeros(len(self.weight), self.reach + 1)
        kernel[:, :: self.dilation] = self.weight[:, 0].flip(-1)
        return ss.Convolution(kernel.expand(len(hidden), -1, -1), hidden.shape[1])


class Stage(nn.Module):
    """The block at one dilation, after the scale and shift that belong to it."""

    def __init__(self, w: nn.ParameterDict, dilation: int) -> None:
        super().__init__()
        self.w = w
        self.taps = Taps(w["block_dw_weight"], w["block_dw_bias"], dilation)
        waves = math.log2(dilation) * math.pi / 2.0 ** torch.arange(w["scale_to_gb_weight"].shape[-1] // 2)
        self.register_buffer("waves", torch.cat([waves.sin(), waves.cos()]))

    def _linear(self, name: str, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.w[f"{name}_weight"], self.w[f"{name}_bias"])

    def _norm(self, name: str, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, hidden.shape[-1:], self.w[f"{name}_weight"])

    def forward(self, hidden: Tensor) -> Tensor:
        """The block."""
        scale, shift = self._linear("scale_to_gb", self.waves).chunk(2, -1)
        hidden = hidden * (1 + scale) + shift
        hidden = self._norm("block_norm1", hidden + self._linear("block_pw", self.taps(hidden)))
        gate, value = self._linear("block_ffn_up", hidden).chunk(2, -1)
        return self._norm("block_norm2", hidden + self._linear("block_ffn_down", functional.silu(gate) * value))


def encoder(weights: dict[str, Tensor], stages: int) -> nn.Module:
    """All stages, which share their weights."""
    shared = nn.ParameterDict({name.replace(".", "_"): one for name, one in weights.items()})
    return nn.Sequential(*(Stage(shared, 2**at) for at in range(stages))).eval()


def fresh(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the package starts: uniform within 1/√inputs, norms of 1, no scale or shift."""
    generator = torch.Generator().manual_seed(0)

    def drawn(name: str, one: Tensor) -> Tensor:
        if "norm" in name:
            return torch.ones_like(one)
        if name.endswith("bias") or "scale" in name:
            return torch.zeros_like(one)
        return (2 * torch.rand(one.shape, generator=generator) - 1) / one.shape[-1] ** 0.5

    return {name: drawn(name, one) for name, one in weights.items()}


def noise(length: int, width: int) -> Tensor:
    """One sequence."""
    return torch.randn(1, length, width, generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) / "fracast" / "weights"
    facts: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))["model"]
    path = folder / "model.safetensors"
    own = {
        name.removeprefix("core."): one
        for name, one in load_file(path).items()
        if name.startswith(("core.block.", "core.scale."))
    }
    model, untrained = (encoder(weights, facts["n_stages"]) for weights in (own, fresh(own)))
    put_on_record(
        Subject(
            "fracast", "fracast encoder", "fracast 0.1.0", "Apache-2.0",
            "T follows from the stored taps alone; forecasts are not checked, as the head is not converted",
            "positions of noise", model, untrained, lambda length: noise(length, facts["d_model"]), [path], axis=1,
        )
    )  # fmt: skip
