from pathlib import Path

import numpy as np
import pytest
import torch

from statesize.check import require_count, require_kind, require_path
from statesize.errors import InputError


def test_what_is_of_a_class_passes() -> None:
    require_kind("model", torch.nn.ReLU(), torch.nn.Module, "a module")
    require_kind("generator", None, (torch.Generator, type(None)), "a torch.Generator or None")
    with pytest.raises(InputError, match=r"^model is a str; a module was expected$"):
        require_kind("model", "gla", torch.nn.Module, "a module")


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3)], ids=repr)
def test_whole_numbers_of_any_library(value: object) -> None:
    assert require_count("steps", value) == 3
    assert require_count("steps", value, least=3) == 3
    with pytest.raises(InputError, match="a whole number of at least 4 was expected"):
        require_count("steps", value, least=4)


@pytest.mark.parametrize(
    "value",
    [0, -1, 1.0, True, np.bool_(True), torch.tensor(True), torch.tensor([1, 2]), "3", None, 10**30, np.array(2.0)],
    ids=repr,
)
def test_other_things_are_no_counts(value: object) -> None:
    with pytest.raises(InputError, match=r"^steps is .*; a whole number of at least 1 was expected$"):
        require_count("steps", value)


def test_a_count_without_a_number() -> None:
    with pytest.raises(InputError, match=r"^steps is tensor"):
        require_count("steps", torch.empty((), dtype=torch.int64, device="meta"))


def test_paths(tmp_path: Path) -> None:
    assert require_path("folder", tmp_path) == tmp_path
    assert require_path("folder", "a/b") == Path("a/b")
    for value in (None, 3, b"x", ["a"]):
        with pytest.raises(InputError, match=r"^folder is a .*; a path was expected$"):
            require_path("folder", value)
    for value in ("", "a\0b", "\ud800", "x" * 300, f"a/{'x' * 300}/b"):
        with pytest.raises(InputError, match=r"which is no path$"):
            require_path("folder", value)
