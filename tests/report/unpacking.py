"""The inverse of `statesize.report.head_map`, as the page's script has it."""

import base64
import zlib

import numpy as np

from statesize.report.head_map import STEPS


def unpacked(packed):
    shares = np.frombuffer(zlib.decompress(base64.b64decode(packed["values"])), "<u2").astype(float)
    return np.where(shares == STEPS + 1, np.nan, shares / STEPS * packed["top"])
