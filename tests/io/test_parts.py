"""Finished parts are read as they were written; damaged ones are told, and made anew."""

import pytest

from statesize.errors import FileError
from statesize.io.files import Parts


def upper(content):
    if content == b"refused":
        raise ValueError("no text")
    return content.decode().upper()


@pytest.fixture
def parts(tmp_path):
    return Parts(tmp_path / "parts", ".part")


def again(parts):
    """The same folder in another process."""
    return Parts(parts.folder, parts.suffix)


@pytest.mark.parametrize("name", ["a", "000001/a"])
def test_what_is_written_is_read(parts, name, caplog):
    assert parts.read(name, upper) is None
    parts.write(name, b"text")
    assert parts.read(name, upper) == again(parts).read(name, upper) == "TEXT"
    assert again(parts).read("b", upper) is None
    assert list(again(parts).names("000001")) == ([name] if "/" in name else [])
    assert not caplog.records


@pytest.mark.parametrize("damage", [b"", b"tex", b"texT", b"refused"])
def test_a_damaged_part_is_told_and_made_anew(parts, damage, caplog):
    if damage == b"refused":
        parts.write("a", damage)
    else:
        parts.write("a", b"text")
        next(parts.folder.iterdir()).write_bytes(damage)
    later = again(parts)
    assert later.read("a", upper) is None
    assert later.read("a", upper) is None
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.endswith(".part is damaged. That part is made anew.")
    later.write("a", b"new")
    assert later.read("a", upper) == again(parts).read("a", upper) == "NEW"
    assert len(list(parts.folder.iterdir())) == 1


def test_a_part_that_is_removed_meanwhile_is_gone(parts, caplog):
    parts.write("a", b"text")
    next(parts.folder.iterdir()).unlink()
    assert parts.read("a", upper) is None
    assert not caplog.records


def test_half_written_files_are_passed_over(parts):
    parts.folder.mkdir()
    (parts.folder / ".a-1234.part.77.part").write_bytes(b"te")
    assert parts.read("a", upper) is None
    assert len(list(parts.folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot write"):
        Parts(tmp_path / "file", ".part").write("a", b"text")
