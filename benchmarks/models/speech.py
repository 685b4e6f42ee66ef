"""Speech to be heard by models: the beginning of a bundled document, spoken by espeak-ng, which must be installed."""

from __future__ import annotations

import io
import subprocess
import wave

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor

from statesize.texts import bundled

RATE = 16_000
DATA = "synthesised speech"


def spoken(text: str, rate: int = RATE) -> Tensor:
    """A text as sound of so many samples a second, (samples,), within −1 … 1."""
    command = ["espeak-ng", "-v", "en-us", "-s", "150", "--stdout", text]
    said = subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603
    with wave.open(io.BytesIO(said)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64) / 2**15
        return torch.from_numpy(resample_poly(samples, rate, file.getframerate())).float()


def sentences(document: int, words: int) -> str:
    """The first words of a bundled document, in one line, without marks that are not read aloud."""
    text = bundled.documents()[document].replace("`", "").replace("*", "")
    return " ".join(text.split()[:words])
