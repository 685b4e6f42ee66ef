from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statesize.check import (
    all_finite,
    real_number,
    refuse,
    require_choice,
    require_count,
    require_finite,
    require_kind,
    require_path,
    require_real,
    whole_number,
)
from statesize.errors import InputError

NAN, INFINITY = float("nan"), float("inf")


def test_a_refusal_quotes_what_was_given_and_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"^shape must be 'box', got 'ball'\. Give a box\.$"):
        refuse("shape", "'box'", "ball", "Give a box.")
    with pytest.raises(InputError, match=r"^shape must be short, got 'x{199}…\.$"):
        refuse("shape", "short", "x" * 1000)


def test_what_is_asked_for_passes_and_other_things_do_not(tmp_path: Path) -> None:
    require_kind("model", torch.nn.ReLU(), torch.nn.Module, "a module")
    require_kind("generator", None, (torch.Generator, type(None)), "a torch.Generator or None")
    assert require_choice("metric", "b", ("a", "b")) == "b"
    assert require_path("folder", tmp_path) == tmp_path
    assert require_path("folder", "a/b") == Path("a/b")
    with pytest.raises(InputError):
        require_kind("model", "gla", torch.nn.Module, "a module")
    for value in ("c", None, 1, np.array(["a", "b"]), ["a"]):
        with pytest.raises(InputError):
            require_choice("metric", value, ("a", "b"))
    for value in (None, 3, b"x", ["a"], "", "a\0b"):
        with pytest.raises(InputError):
            require_path("folder", value)


PLAIN = {"least": 1, "plain": True}


@pytest.mark.parametrize(
    ("bounds", "good", "bad"),
    [
        ({}, (1, np.int64(3), torch.tensor(3)), (0, 1.0, True, torch.tensor([1, 2]), "3", None, 10**30)),
        ({"least": 4}, (4, torch.tensor(4)), (3,)),
        (PLAIN, (3,), (np.int64(3), torch.tensor(3), True, 3.0)),
    ],
    ids=["any", "least", "plain"],
)
def test_counts(bounds: dict[str, int], good: tuple[object, ...], bad: tuple[object, ...]) -> None:
    assert [require_count("steps", value, **bounds) for value in good] == [int(value) for value in good]
    for value in bad:
        with pytest.raises(InputError):
            require_count("steps", value, **bounds)


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "told"),
    [
        ({}, (-2, 0.0, 1e300), (NAN, INFINITY, None, "1", True, 10**400), "a finite number"),
        ({"above": 0}, (1e-9, 3), (0, -1, NAN), "a number above 0"),
        ({"least": 0, "below": 1}, (0, 0.5, np.float32(0.5)), (1, -0.1), "a number of at least 0 and below 1"),
        ({"above": 0, "most": 1}, (1, torch.tensor(0.5)), (0, 1.1), "a number above 0 and at most 1"),
        ({"least": 0, "plain": True}, (0.5, 0), (np.int64(1), torch.tensor(1.0), True), "a number of at least 0"),
    ],
    ids=["any", "positive", "below 1", "share", "plain"],
)
def test_real_numbers_between_bounds(bounds, good, bad, told) -> None:
    for value in good:
        assert require_real("share", value, **bounds) == float(value)
    for value in bad:
        with pytest.raises(InputError, match=f"^share must be {told}, got "):
            require_real("share", value, **bounds)


@given(st.lists(st.floats(width=32) | st.complex_numbers(width=64)))
def test_finite_or_not(entries):
    plain = torch.tensor(entries)
    for tensor in (plain, plain.expand(3, -1).requires_grad_()):
        assert all_finite(tensor) == bool(np.isfinite(plain.numpy()).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.complex128])
def test_the_first_entry_that_is_not(dtype):
    tensor = torch.zeros(2, 3, dtype=dtype)
    require_finite("A", tensor)
    tensor[1, 0], tensor[1, 2] = NAN, INFINITY
    with pytest.raises(InputError, match=r"^A must be finite, got \(?nan.* at index \(1, 0\) of shape \(2, 3\)\.$"):
        require_finite("A", tensor)


@pytest.mark.parametrize(
    ("values", "whole", "real"),
    [
        ((2, np.int64(2), torch.tensor(2)), 2, 2.0),
        ((Fraction(1, 2), np.array(0.5), torch.tensor(0.5, requires_grad=True)), None, 0.5),
        ((True, np.bool_(True), torch.tensor(True), np.complex128(2), torch.tensor(2j)), None, None),
        ((NAN, "2", torch.tensor([2.0])), None, None),
        ((10**400,), 10**400, None),
    ],
    ids=repr,
)
def test_numbers_of_any_library(values, whole, real):
    assert [(whole_number(value), real_number(value)) for value in values] == [(whole, real)] * len(values)
