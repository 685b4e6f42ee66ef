"""A profile, or rows of a study, done twice: identical, within the bounds that both state, or different."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from statesize.profiling import Profile
from statesize.results.fields import COUNTS, CountFields

T = TypeVar("T")

IDENTICAL, WITHIN, DIFFERENT = "identical", "within bounds", "different"
ROUNDING = 64
"""Units of rounding, in float32 or a coarser dtype, by which a model may make an operator otherwise on other threads.

In small random models up to 18 were seen. Rounding grows with a model's depth and nobody bounds it: what passes this is
reported as different, with how far apart it is.
"""


@dataclass(frozen=True)
class Compared:
    """One part of a result against its repetition.

    Attributes:
        verdict: IDENTICAL, WITHIN or DIFFERENT.
        detail: How far apart the two are, in words.
    """

    part: str
    verdict: str
    detail: str = ""


def compare_profiles(before: Profile, after: Profile) -> list[Compared]:
    """The tokens, then the mixers in the order of `before`, then those that only `after` has."""
    # Counts are within bounds where the intervals from `lower` to `upper` meet, entropies where they differ by no more
    # than both `entropy_bound` allow, and norms by no more than both `error_bound` in √L singular values. These bounds
    # are of the measurement of an operator. A model's own arithmetic, in float32 mostly, rounds otherwise with another
    # number of threads; so entropies and norms may also differ by what ROUNDING units of the operator's dtype, of
    # float32 at least, relative to ‖H_i‖, do to them.
    first, second = before.tokens["token_ids"].values, after.tokens["token_ids"].values
    if not _equal(first, second):
        return [Compared("tokens", DIFFERENT, "the model read other tokens")]
    earlier, later = ({name: profile.mixer(name) for name in profile.mixers} for profile in (before, after))
    mixers = _compare_parts(earlier, later, partial(_compare_mixers, length=first.shape[-1]))
    return [Compared("tokens", IDENTICAL), *mixers]


def compare_rows(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[Compared]:
    """Rows of tables, run by run; nothing states bounds for these, so equal means identical."""

    def compare(run: str, first: pd.DataFrame, second: pd.DataFrame) -> Compared:
        return Compared(run, IDENTICAL if first.equals(second) else DIFFERENT)

    def runs(rows: Sequence[Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
        table = pd.DataFrame(rows).drop(columns="seconds")
        # What only rows of other runs have is no column of this one.
        parts = table.groupby("run", sort=False)
        return {str(run): part.dropna(axis="columns", how="all").reset_index(drop=True) for run, part in parts}

    return _compare_parts(runs(before), runs(after), compare)


def _compare_parts(
    before: Mapping[str, T], after: Mapping[str, T], compare: Callable[[str, T, T], Compared]
) -> list[Compared]:
    """Parts by name, in the order of `before`, then those that only `after` has."""
    return [
        compare(name, before[name], after[name])
        if name in before and name in after
        else Compared(name, DIFFERENT, "only one of them has it")
        for name in dict.fromkeys((*before, *after))
    ]


def _compare_mixers(name: str, before: xr.Dataset, after: xr.Dataset, length: int) -> Compared:
    names = set(map(str, before.variables))
    if names != set(map(str, after.variables)) or any(before[one].shape != after[one].shape for one in names):
        return Compared(name, DIFFERENT, "other heads, positions or thresholds")
    unequal = [one for one in names if not _equal(before[one].values, after[one].values)]
    if not unequal:
        return Compared(name, IDENTICAL)
    # Bytes of a cache and faithfulness say nothing of the measurement.
    fixed = [one for one in unequal if one in before.coords or one in {"state_size", "ceiling", "stratum"}]
    if fixed:
        return Compared(name, DIFFERENT, f"other {', '.join(sorted(fixed))}")
    entropy, norm = _apart(before, after, "entropy"), _apart(before, after, "norm")
    outside = sum(int(_disjoint(before, after, counts).sum()) for counts in COUNTS)
    rounding, norm_rounding = _rounding(before)
    # Entropies are kept in float32.
    stored = np.spacing(np.float32(np.nan_to_num(before["entropy"].values)))
    allowed = _sum(before, after, "entropy_bound") + rounding + stored
    norm_allowed = math.sqrt(length) * _sum(before, after, "error_bound") + norm_rounding
    within = bool((entropy <= allowed).all() and (norm <= norm_allowed).all()) and not outside
    detail = (
        f"entropies differ by up to {entropy.max(initial=0):.1e} where {_at_worst(entropy, allowed):.1e} is allowed, "
        f"norms by {norm.max(initial=0):.1e} where {_at_worst(norm, norm_allowed):.1e} is; {outside} counts "
        "lie outside their bounds"
    )
    return Compared(name, WITHIN if within else DIFFERENT, detail)


def _rounding(mixer: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What becomes of entropies and norms where H_i is off by some units of rounding."""
    # By Weyl's inequality no σ moves by more than ‖ΔH_i‖, so that σ/Σσ moves by t ≤ r ‖ΔH_i‖ / ‖H_i‖ in all, and its
    # entropy by at most t ln r − t ln t − (1 − t) ln(1 − t) (Audenaert, J. Phys. A 40, 2007, theorem 1).
    # Operators in float64 are made of what a model computed in float32.
    precision = torch.finfo(getattr(torch, mixer.attrs["dtype"])).eps
    unit = ROUNDING * max(precision, torch.finfo(torch.float32).eps)
    rank = np.maximum(np.nan_to_num(mixer["ceiling"].values.astype(np.float64))[:, None], 1)
    moved = np.minimum(unit * rank, 0.5)
    change = moved * np.log(rank) - moved * np.log(moved) - (1 - moved) * np.log1p(-moved)
    ess, norm = (np.nan_to_num(mixer[name].values.astype(np.float64)) for name in ("entropy", "norm"))
    return ess * np.expm1(change), unit * norm


def _apart(before: xr.Dataset, after: xr.Dataset, name: str) -> NDArray[np.float64]:
    """|difference|; 0 where both are not known, infinite where one is."""
    first, second = (data[name].values.astype(np.float64) for data in (before, after))
    difference = np.abs(first - second)
    unknown = np.isnan(first) | np.isnan(second)
    return np.where(unknown, np.where(np.isnan(first) & np.isnan(second), 0.0, np.inf), difference)


def _sum(before: xr.Dataset, after: xr.Dataset, name: str) -> NDArray[np.float64]:
    return sum(np.nan_to_num(data[name].values.astype(np.float64)) for data in (before, after))


def _at_worst(difference: NDArray[np.float64], allowed: NDArray[np.float64]) -> float:
    return float(allowed.flat[int(difference.argmax())]) if difference.size else 0.0


def _disjoint(before: xr.Dataset, after: xr.Dataset, counts: CountFields) -> NDArray[np.bool_]:
    unlike = np.isnan(before[counts.name].values) != np.isnan(after[counts.name].values)
    lowest = np.maximum(before[counts.lower].values, after[counts.lower].values)
    return unlike | (lowest > np.minimum(before[counts.upper].values, after[counts.upper].values))


def _equal(first: NDArray[Any], second: NDArray[Any]) -> bool:
    return first.shape == second.shape and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
