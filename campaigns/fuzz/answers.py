"""Whether an answer of the library is right, against the spectra of the definition."""

from __future__ import annotations

import numpy as np
from oracles import exact
from oracles.exact import Spectra
from torch import Tensor

import statesize as ss


def numbers(tensor: Tensor) -> np.ndarray:
    """A result as numpy has it."""
    return tensor.detach().numpy()


def wrong_measurement(found: ss.Measurement, truth: Spectra) -> list[str]:
    """What of a measurement contradicts the definition, beyond its own bounds and those of the definition here."""
    problems: list[str] = []
    bound = numbers(found.error_bound)
    if bound.shape != truth.norm.shape or not np.isfinite(bound).all() or (bound < 0).any():
        return [f"error_bound is {bound!r} for shape {truth.norm.shape}"]
    top = truth.values.max(-1, initial=0)
    # A bound is relative to the operator: at a position where nothing passes, σ_1 itself says nothing.
    if (bound > 1e-3 * top.max(-1, initial=0, keepdims=True) + 1e-12 * max(1.0, truth.size)).any():
        problems.append(f"error_bound says nothing: {bound.max():g} for σ_1 {top.max():g}")
    problems += _wrong_norm(numbers(found.norm), bound, truth)
    if found.values is not None:
        problems += _wrong_values(numbers(found.values), bound, truth)
    if found.count is not None:
        tau = np.broadcast_to(numbers(found.tolerances), (*truth.norm.shape, found.tolerances.numel()))
        parts = (found.lower, found.count, found.upper)
        problems += _wrong_counts("tolerance", parts, tau, truth.slack[..., None], truth)
    if found.relative_count is not None:
        rho = numbers(found.relative_tolerances)
        parts = (found.relative_lower, found.relative_count, found.relative_upper)
        slack = truth.slack[..., None] * (1 + rho)
        problems += _wrong_counts("relative_count", parts, top[..., None] * rho, slack, truth)
    if found.entropy is not None and found.entropy_bound is not None:
        problems += _wrong_entropy(numbers(found.entropy), numbers(found.entropy_bound), bound, truth)
    return problems


def _wrong_norm(norm: np.ndarray, bound: np.ndarray, truth: Spectra) -> list[str]:
    if norm.shape != truth.norm.shape or not np.isfinite(norm).all():
        return [f"norm is {norm!r}"]
    off = np.abs(norm - truth.norm) > 1e-9 * truth.norm + 30 * bound + 30 * truth.slack + 1e-150
    return [f"norm is {norm[off][0]!r} for {truth.norm[off][0]!r}"] if off.any() else []


def _wrong_values(values: np.ndarray, bound: np.ndarray, truth: Spectra) -> list[str]:
    if values.shape[:-1] != truth.norm.shape or not np.isfinite(values).all():
        return [f"values have shape {values.shape} or are not finite"]
    r = max(values.shape[-1], truth.values.shape[-1])
    given, right = (np.pad(v, [(0, 0)] * (v.ndim - 1) + [(0, r - v.shape[-1])]) for v in (values, truth.values))
    off = np.abs(given - right).max(-1, initial=0) > bound + truth.slack
    if (np.diff(given) > 0).any():
        return ["values do not descend"]
    return [f"values are off by {np.abs(given - right)[off].max():g}, bound {bound[off].max():g}"] if off.any() else []


def _wrong_counts(
    name: str, parts: tuple[Tensor | None, ...], threshold: np.ndarray, slack: np.ndarray, truth: Spectra
) -> list[str]:
    lower, count, upper = (numbers(part) for part in parts if part is not None)
    sigma = truth.values[..., None, :]
    least = (sigma > (threshold + slack)[..., None]).sum(-1)
    most = (sigma > (threshold - slack)[..., None]).sum(-1)
    if count.shape != threshold.shape:
        return [f"{name} has shape {count.shape} for {threshold.shape}"]
    if (lower > count).any() or (count > upper).any():
        return [f"{name} lies outside of its own bounds"]
    off = (lower > most) | (upper < least)
    return [f"{name} is {lower[off][0]} … {upper[off][0]} for {least[off][0]} … {most[off][0]}"] if off.any() else []


def _wrong_entropy(entropy: np.ndarray, stated: np.ndarray, bound: np.ndarray, truth: Spectra) -> list[str]:
    if entropy.shape != truth.norm.shape or not np.isfinite(entropy).all() or not np.isfinite(stated).all():
        return [f"entropy is {entropy!r}, bound {stated!r}"]
    right = exact.effective_rank(truth.values)
    slack = exact.effective_rank_slack(truth.values, truth.slack, right)
    # 0 by definition where σ_1 lies within the engine's own error.
    zero = (entropy == 0) & (truth.values.max(-1, initial=0) <= 2 * bound + truth.slack)
    off = (np.abs(entropy - right) > stated + slack) & ~zero
    return [f"entropy is {entropy[off][0]} ± {stated[off][0]:g} for {right[off][0]}"] if off.any() else []


def wrong_matrix(T: Tensor, truth: np.ndarray, accuracy: float) -> list[str]:
    """Whether a T of the library is the definition's, at an accuracy relative to its largest entry."""
    given = exact.wide(T)
    if given.shape != truth.shape:
        return [f"T has shape {given.shape} for {truth.shape}"]
    scale = np.abs(truth).max((-2, -1), initial=0, keepdims=True)
    off = ~(np.abs(given - truth) <= accuracy * scale + 1e-300)
    return [f"T is {given[off][0]!r} for {truth[off][0]!r}"] if off.any() else []
