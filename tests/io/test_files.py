"""Locked folders and limited files; what is written whole is tested where it is written."""

import errno
import os
import shutil
import signal
import subprocess
import sys

import pytest

from statesize.errors import FileError
from statesize.io import files
from statesize.io.files import LOCK, only_writer, read_limited

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


def test_the_size_of_a_file_is_limited(tmp_path):
    (tmp_path / "file").write_bytes(b"1234")
    assert read_limited(tmp_path / "file", 4) == b"1234"
    with pytest.raises(FileError, match="has more than 3 bytes"):
        read_limited(tmp_path / "file", 3)


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
