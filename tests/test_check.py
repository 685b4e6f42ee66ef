from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

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


def test_what_is_of_a_class_passes() -> None:
    require_kind("model", torch.nn.ReLU(), torch.nn.Module, "a module")
    require_kind("generator", None, (torch.Generator, type(None)), "a torch.Generator or None")
    with pytest.raises(InputError, match=r"^model must be a module, got str\.$"):
        require_kind("model", "gla", torch.nn.Module, "a module")


@pytest.mark.parametrize("value", ["c", None, 1, np.array(["a", "b"]), ["a"]], ids=repr)
def test_a_choice_is_one_of_some_names(value: object) -> None:
    assert require_choice("metric", "b", ("a", "b")) == "b"
    with pytest.raises(InputError, match=r"^metric must be one of a, b, got "):
        require_choice("metric", value, ("a", "b"))


@pytest.mark.parametrize(
    "value",
    [0, -1, 1.0, True, torch.tensor([1, 2]), "3", None, 10**30],
    ids=repr,
)
def test_other_things_are_no_counts(value: object) -> None:
    with pytest.raises(InputError, match=r"^steps must be a whole number of at least 1(, below 2\*\*63)?, got "):
        require_count("steps", value)


def test_a_count_has_a_least_number() -> None:
    assert require_count("steps", torch.tensor(3), least=3) == 3
    with pytest.raises(InputError, match=r"^steps must be a whole number of at least 4, got 3"):
        require_count("steps", 3, least=4)


def test_paths(tmp_path: Path) -> None:
    assert require_path("folder", tmp_path) == tmp_path
    assert require_path("folder", "a/b") == Path("a/b")
    for value in (None, 3, b"x", ["a"]):
        with pytest.raises(InputError, match=r"^folder must be a path, got \w+\.$"):
            require_path("folder", value)
    for value in ("", "a\0b"):
        with pytest.raises(InputError, match=r"^folder must be a path, not empty and without null characters, got "):
            require_path("folder", value)


@pytest.mark.parametrize("value", [np.int64(3), torch.tensor(3), True, 3.0], ids=repr)
def test_what_goes_to_json_is_a_plain_number(value: object) -> None:
    assert require_count("steps", 3, plain=True) == 3
    with pytest.raises(InputError, match=r"^steps must be a whole number of at least 1, got "):
        require_count("steps", value, plain=True)


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
def test_real_numbers_between_bounds(bounds: dict[str, float], good: object, bad: object, told: str) -> None:
    for value in good:
        assert require_real("share", value, **bounds) == float(value)
    for value in bad:
        with pytest.raises(InputError, match=f"^share must be {told}, got "):
            require_real("share", value, **bounds)


@pytest.mark.parametrize(
    ("entries", "finite"),
    [
        ([1.0, -2.0], True),
        ([3e38, 3e38], True),
        ([NAN, 1.0], False),
        ([1.0, NAN], False),
        ([0.0, INFINITY], False),
        ([-INFINITY, 0.0], False),
        ([1 + 2j, 0j], True),
        ([0j, complex(0, NAN)], False),
        ([complex(-INFINITY, 0), 0j], False),
        ([], True),
    ],
)
def test_finite_or_not(entries, finite):
    for tensor in (torch.tensor(entries), torch.tensor(entries).expand(3, -1).requires_grad_()):
        assert all_finite(tensor) == finite


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.complex128])
def test_the_first_entry_that_is_not(dtype):
    tensor = torch.zeros(2, 3, dtype=dtype)
    require_finite("A", tensor)
    tensor[1, 0] = NAN
    tensor[1, 2] = INFINITY
    with pytest.raises(InputError, match=r"^A must be finite, got \(?nan.* at index \(1, 0\) of shape \(2, 3\)\.$"):
        require_finite("A", tensor)


@pytest.mark.parametrize(
    ("value", "whole", "real"),
    [
        (2, 2, 2.0),
        (np.int64(2), 2, 2.0),
        (torch.tensor(2), 2, 2.0),
        (Fraction(1, 2), None, 0.5),
        (np.array(0.5), None, 0.5),
        (torch.tensor(0.5, requires_grad=True), None, 0.5),
        (True, None, None),
        (np.bool_(True), None, None),
        (torch.tensor(True), None, None),
        (np.complex128(2), None, None),
        (torch.tensor(2j), None, None),
        (10**400, 10**400, None),
        (NAN, None, None),
        ("2", None, None),
        (torch.tensor([2.0]), None, None),
    ],
    ids=repr,
)
def test_numbers_of_any_library(value, whole, real):
    assert whole_number(value) == whole
    assert real_number(value) == real
