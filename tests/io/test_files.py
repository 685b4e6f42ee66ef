"""Locked folders, limited files and parts of runs; complete writing is tested where it is used."""

import errno
import shutil
import signal
import subprocess
import sys

import pytest

from statesize.errors import FileError
from statesize.io import files
from statesize.io.files import Parts, only_writer

HOLD = """
import sys
from pathlib import Path
from statesize.io.files import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that writes to the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_refused_until_the_first_has_ended(holder, tmp_path):
    with pytest.raises(FileError, match="another process"), only_writer(tmp_path / "out"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_writer(tmp_path / "out"):
        assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_removed_and_made_anew_is_locked_anew(tmp_path):
    with only_writer(tmp_path / "out"):
        shutil.rmtree(tmp_path / "out")
        with only_writer(tmp_path / "out"), pytest.raises(FileError, match="another process"):
            only_writer(tmp_path / "out").__enter__()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot write to"), only_writer(tmp_path / "file"):
        pass


@pytest.mark.parametrize("system", ["no locks", "a file system without"])
def test_what_cannot_be_locked_is_written_all_the_same(tmp_path, monkeypatch, system):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if system == "no locks":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", refuse)
    with only_writer(tmp_path):
        assert list(tmp_path.iterdir()) == []


def upper(content):
    if content in (b"", b"refused"):
        raise ValueError("no text")
    return content.decode().upper()


@pytest.fixture
def parts(tmp_path):
    return Parts(tmp_path / "parts", ".part", str.encode, upper)


def again(parts):
    """The same folder in another process."""
    return Parts(parts.folder, parts.suffix, parts.encode, parts.decode)


@pytest.mark.parametrize("name", ["a", "000001/a"])
def test_what_is_written_is_read(parts, name, caplog):
    assert parts.read(name) is None
    parts.write(name, "text")
    assert parts.read(name) == again(parts).read(name) == "TEXT"
    assert again(parts).read("b") is None
    assert list(again(parts).names("000001")) == ([name] if "/" in name else [])
    assert not caplog.records


def test_without_a_folder_values_stay_in_memory():
    parts = Parts(None, ".part", str.encode, upper)
    assert parts.read("000001/a") is None
    parts.write("000001/a", "text")
    assert (parts.read("000001/a"), parts.names("000001")) == ("text", [])


@pytest.mark.parametrize("damage", [b"", b"refused"])
def test_a_damaged_part_is_told_and_made_anew(parts, damage, caplog):
    parts.write("a", "text")
    next(parts.folder.iterdir()).write_bytes(damage)
    later = again(parts)
    assert later.read("a") is None
    assert later.read("a") is None
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.endswith(".part is damaged and was removed.")
    later.write("a", "new")
    assert later.read("a") == again(parts).read("a") == "NEW"
    assert len(list(parts.folder.iterdir())) == 1


def test_a_part_that_is_removed_meanwhile_is_gone(parts, caplog):
    parts.write("a", "text")
    next(parts.folder.iterdir()).unlink()
    assert parts.read("a") is None
    assert not caplog.records


def test_a_part_that_is_removed(parts):
    parts.write("a", "text")
    parts.remove("a")
    assert parts.read("a") is None
    assert list(parts.folder.iterdir()) == []


def test_half_written_files_are_passed_over(parts):
    parts.folder.mkdir()
    (parts.folder / ".a.part.77.part").write_bytes(b"te")
    assert parts.read("a") is None
    assert len(list(parts.folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot write"):
        Parts(tmp_path / "file", ".part", str.encode, upper).write("a", "text")
