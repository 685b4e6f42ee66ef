"""Locked folders, limited files and parts of runs; complete writing is tested where it is used."""

import errno
import os
import shutil
import signal
import subprocess
import sys

import pytest

from statesize.errors import FileError
from statesize.io import files
from statesize.io.files import LOCK, Parts, only_writer

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
    refusal = pytest.raises(
        FileError, match=rf"another process \({holder.pid} on .*\) writes to .*out; wait for its end"
    )
    with refusal, only_writer(tmp_path / "out"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK).exists()
    with only_writer(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_removed_and_made_anew_is_locked_anew(tmp_path):
    with only_writer(tmp_path / "out"):
        shutil.rmtree(tmp_path / "out")
        with only_writer(tmp_path / "out"):
            lock = tmp_path / "out" / LOCK
            assert lock.read_text().startswith(str(os.getpid()))
    assert not lock.exists()


def test_the_lock_of_another_is_left_where_the_folder_was_removed(tmp_path):
    with only_writer(tmp_path / "out"):
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / LOCK).write_text("theirs")
    assert (tmp_path / "out" / LOCK).read_text() == "theirs"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot write to"), only_writer(tmp_path / "file"):
        pass


def test_a_lock_of_a_file_that_was_replaced_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    place, lock = tmp_path / LOCK, files._lock

    def replaced(descriptor):
        # Whoever had the lock removes the file while this process opens it, and a third one makes it anew.
        monkeypatch.setattr(files, "_lock", lock)
        place.unlink()
        place.touch()
        lock(descriptor)

    monkeypatch.setattr(files, "_lock", replaced)
    with only_writer(tmp_path):
        assert place.read_text().startswith(str(os.getpid()))
        with pytest.raises(FileError, match="another process"), only_writer(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("system", ["no locks", "a file system without"])
def test_what_cannot_be_locked_is_written_all_the_same(tmp_path, monkeypatch, system):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if system == "no locks":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", refuse)
    with only_writer(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert list(tmp_path.iterdir()) == []


def upper(content):
    if content == b"refused":
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
    assert (parts.read("000001/a"), parts.names("000001"), parts.names("000002")) == ("text", ["000001/a"], [])


@pytest.mark.parametrize("damage", [b"", b"tex", b"texT", b"refused"])
def test_a_damaged_part_is_told_and_made_anew(parts, damage, caplog):
    if damage == b"refused":
        parts.write("a", damage.decode())
    else:
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
    (parts.folder / ".a-1234.part.77.part").write_bytes(b"te")
    assert parts.read("a") is None
    assert len(list(parts.folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot write"):
        Parts(tmp_path / "file", ".part", str.encode, upper).write("a", "text")
