"""Silero VAD of 16 kHz, of silero-vad 6.2.3: `python -m benchmarks.models.silero_vad FOLDER`, with espeak-ng installed.

FOLDER also has onnxruntime, which runs the same model as the package exports it, for the check. (The file of
safetensors beside it is an older release: its outputs differ.) A frame is 512 samples
and the 64 before them; convolutions make one vector of each, and an LSTM of 128 reads the vectors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.models.making import SEQUENCES, Subject, put_on_record, require
from benchmarks.models.speech import DATA, sentences, spoken

SAMPLES, CONTEXT, BINS = 512, 64, 129


class Detector(nn.Module):
    """Frames of sound (sequence, frame, samples) to the probability of speech in each."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Conv1d(1, 2 * BINS, 256, 128, bias=False)
        sizes = ((BINS, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1))
        self.convolutions = nn.ModuleList(nn.Conv1d(i, o, 3, stride, 1) for i, o, stride in sizes)
        self.lstm, self.head = nn.LSTM(128, 128, batch_first=True), nn.Linear(128, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Probabilities (sequence, frame)."""
        flat = functional.pad(frames.flatten(0, 1)[:, None], (0, CONTEXT), mode="reflect")
        real, imaginary = self.spectrum(flat).split(BINS, 1)
        hidden = (real**2 + imaginary**2).sqrt()
        for convolution in self.convolutions:
            hidden = convolution(hidden).relu()
        read, _ = self.lstm(hidden[..., 0].unflatten(0, frames.shape[:2]))
        return self.head(read.relu()).sigmoid()[..., 0]


def state_dict(path: Path) -> dict[str, Tensor]:
    """The weights of the package's archive under the names above; none of the code in it is run."""
    weights: dict[str, Tensor] = torch.jit.load(path, map_location="cpu").state_dict()
    theirs = "_model.decoder"
    found = {"spectrum.weight": weights["_model.stft.forward_basis_buffer"]}
    found["head.weight"] = weights[f"{theirs}.decoder.2.weight"][..., 0]
    found["head.bias"] = weights[f"{theirs}.decoder.2.bias"]
    for at in range(4):
        for part in ("weight", "bias"):
            found[f"convolutions.{at}.{part}"] = weights[f"_model.encoder.{at}.reparam_conv.{part}"]
    for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        found[f"lstm.{part}_l0"] = weights[f"{theirs}.rnn.{part}"]
    return {name: one.detach() for name, one in found.items()}


def framed(sound: Tensor) -> Tensor:
    """Frames with the samples before them, (frames, samples)."""
    return functional.pad(sound, (CONTEXT, 0)).unfold(0, CONTEXT + SAMPLES, SAMPLES)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    path = folder / "silero_vad/data/silero_vad.jit"
    torch.manual_seed(0)
    untrained, model = Detector().eval(), Detector().eval()
    # The spectrum is a Fourier transform, and no weight that is trained.
    untrained.spectrum.load_state_dict({"weight": state_dict(path)["spectrum.weight"]})
    model.load_state_dict(state_dict(path))
    sounds = [framed(spoken(sentences(at, 60))) for at in range(SEQUENCES // 2)]

    sys.path.append(str(folder))
    from onnxruntime import InferenceSession  # pyright: ignore[reportMissingImports]

    session = InferenceSession(path.with_name("silero_vad_16k_op15.onnx"))
    state, theirs, heard = np.zeros((2, 1, 128), np.float32), list[float](), sounds[0]
    for frame in heard.numpy():
        given = {"input": frame[None], "state": state, "sr": np.array(16_000)}
        probability, state = session.run(None, given)
        theirs.append(float(probability[0, 0]))
    with torch.inference_mode():
        mine, hiss = model(heard[None])[0], model(0.01 * torch.randn_like(heard)[None])[0]
    apart = float((mine - torch.tensor(theirs)).abs().max())
    require(apart < 1e-3, f"probabilities differ from those of the package's ONNX file by {apart:.0e}")
    speech, noise = (float((heard > 0.5).float().mean()) for heard in (mine, hiss))
    put_on_record(
        Subject(
            "silero_vad", "Silero VAD", "silero-vad 6.2.3", "MIT",
            f"probabilities as those of the package's ONNX file to {apart:.0e}; speech in {speech:.0%} of the "
            f"frames of spoken text and in {noise:.0%} of those of noise",
            f"frames of {DATA}", model, untrained,
            lambda length: torch.stack([sound[:length] for sound in sounds]), [path], lengths=(64, 128, 256),
        )
    )  # fmt: skip
