"""What diagnoses, comparisons, charts and reports read of a profile, so that they stand below it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import xarray as xr

from statesize.results.summary import SummaryRow


@runtime_checkable
class Profiled(Protocol):
    """A measured model; `statesize.Profile` is the one that there is."""

    @property
    def model(self) -> str:
        """Name of the model."""
        ...

    @property
    def mixers(self) -> tuple[str, ...]:
        """Names of the mixers, in the order in which the model calls them."""
        ...

    @property
    def tokens(self) -> xr.Dataset:
        """Token ids, tokens and special, each (sequence, token), and length (sequence)."""
        ...

    @property
    def attributes(self) -> dict[str, Any]:
        """Versions, digests and settings."""
        ...

    @property
    def notes(self) -> dict[str, str]:
        """What some mixers do to their values beside mixing them, by the mixer's name."""
        ...

    def mixer(self, name: str) -> xr.Dataset:
        """What was measured of one mixer."""
        ...

    def group(self, name: str) -> xr.Dataset | None:
        """What was measured of groups of one mixer's heads together; None where they share nothing."""
        ...

    def summary_rows(self) -> list[SummaryRow]:
        """One row a mixer."""
        ...
