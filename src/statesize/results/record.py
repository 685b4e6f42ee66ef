"""What was measured of one mixer over one sequence, in memory and as bytes that notice damage."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any, Self, cast

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from statesize.files import parse_json
from statesize.results.sampling import Sample

Array = NDArray[np.float32]
# Norms and bounds have the operator's scale, which float32 need not hold: 1e50, or a bound that would round to 0.
Wide = NDArray[np.float64]
WIDE = ("entropy_bound", "norm", "error_bound")


@dataclass(frozen=True, eq=False)
class SequenceRecord:
    """One mixer over one sequence: H measured heads or channels, P positions, K tolerances, R relative ones.

    Attributes:
        name: The mixer's name.
        kind: What the mixer is.
        note: What the mixer does to its values beside mixing them; empty where it does nothing.
        multiplicity: Channels that share one operator.
        dtype: Dtype in which the model made the operator.
        engine: The engines that gave these numbers.
        state_bytes: Bytes that the model's own cache holds for this mixer at the end of the sequence.
        faithfulness: Largest relative difference between T u and what the unaltered model computed; NaN if not known.
        run_difference: That of the last hidden state in the observed run.
        seconds: Time that measuring took.
        units: Indices of the heads or channels, (H,).
        strata: Stratum of each, (H,).
        sizes: Heads or channels in each stratum, measured or not.
        positions: (P,) integers ≥ 1.
        entropy: (H, P).
        entropy_bound: (H, P).
        tolerance: (H, P, K).
        lower: (H, P, K).
        upper: (H, P, K).
        relative_tolerance: (H, P, R).
        relative_lower: (H, P, R).
        relative_upper: (H, P, R).
        norm: (H, P).
        error_bound: (H, P).
        state_size: (P,).
        ceiling: (P,).
    """

    name: str
    kind: str
    note: str
    multiplicity: int
    dtype: str
    engine: str
    state_bytes: int
    faithfulness: float
    run_difference: float
    seconds: float
    units: NDArray[np.int64]
    strata: NDArray[np.int64]
    sizes: NDArray[np.int64]
    positions: NDArray[np.int64]
    entropy: Array
    entropy_bound: Wide
    tolerance: Array
    lower: Array
    upper: Array
    relative_tolerance: Array
    relative_lower: Array
    relative_upper: Array
    norm: Wide
    error_bound: Wide
    state_size: Array
    ceiling: Array

    @property
    def sample(self) -> Sample:
        """Which heads or channels were measured, of which."""
        return Sample(self.units, self.strata, self.sizes)

    def to_bytes(self) -> bytes:
        """The record with its checksum, as `from_bytes` reads it.

        Returns:
            A line with the SHA-256 of the rest, a line of JSON, and safetensors.
        """
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        names = [name for name, value in values.items() if isinstance(value, np.ndarray)]
        arrays: dict[str, NDArray[Any]] = {name: np.ascontiguousarray(values[name]) for name in names}
        facts = {name: value for name, value in values.items() if name not in arrays}
        return sealed(json.dumps(facts).encode() + b"\n" + safetensors.numpy.save(arrays))

    @classmethod
    def from_bytes(cls, content: bytes) -> Self | None:
        """Read what `to_bytes` wrote.

        Args:
            content: The bytes.

        Returns:
            The record, or None where they are not what was written.
        """
        payload = unsealed(content)
        if payload is None:
            return None
        facts, _, tensors = payload.partition(b"\n")
        try:
            values: dict[str, Any] = cast("dict[str, Any]", parse_json(facts)) | safetensors.numpy.load(tensors)
        except (ValueError, TypeError, SafetensorError):
            return None
        return cls(**values) if values.keys() == {field.name for field in fields(cls)} else None


def sealed(payload: bytes) -> bytes:
    """Bytes with their checksum in front.

    Args:
        payload: Any bytes.

    Returns:
        The SHA-256 in hexadecimal, a line end, and the payload.
    """
    return hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def unsealed(content: bytes) -> bytes | None:
    """The payload of what `sealed` made.

    Args:
        content: The bytes.

    Returns:
        The payload, or None where the checksum does not fit.

    Example:
        >>> unsealed(sealed(b"whole")), unsealed(sealed(b"damaged")[:-1])
        (b'whole', None)
    """
    digest, _, payload = content.partition(b"\n")
    return payload if digest == hashlib.sha256(payload).hexdigest().encode() else None
