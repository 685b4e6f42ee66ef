"""Locked folders, limited files and parts of runs; complete writing is tested where it is used."""

import errno
import shutil
import signal
import subprocess
import sys

import pytest

from statesize.errors import FileError
from statesize.io import files
from statesize.io.files import Parts, only_writer, parts_writer

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
    with pytest.raises(FileError), only_writer(tmp_path / "out"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_writer(tmp_path / "out"):
        assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_removed_and_made_anew_is_locked_anew(tmp_path):
    with only_writer(tmp_path / "out"):
        shutil.rmtree(tmp_path / "out")
        with only_writer(tmp_path / "out"), pytest.raises(FileError):
            only_writer(tmp_path / "out").__enter__()


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


def parts_in(folder):
    return Parts(folder, ".part", str.encode, upper)


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_written_is_read_until_it_is_removed(tmp_path, kept, caplog):
    folder = tmp_path / "parts" if kept else None
    parts = parts_in(folder)
    assert parts.read("000001/a") is None
    parts.write("000001/a", "text")
    assert parts.read("000001/a") == ("TEXT" if kept else "text")
    assert parts.names("000001") == (["000001/a"] if kept else [])
    # In another process.
    assert parts_in(folder).read("000001/a") == ("TEXT" if kept else None)
    parts.remove("000001/a")
    assert parts.read("000001/a") is None
    assert not caplog.records


@pytest.mark.parametrize("damage", [b"", b"refused"])
def test_a_damaged_part_is_told_and_made_anew(tmp_path, damage, caplog):
    parts = parts_in(tmp_path)
    (tmp_path / "a.part").write_bytes(damage)
    # Half a file that an interrupt left.
    (tmp_path / ".b.part.77.part").write_bytes(b"te")
    assert [parts.read(name) for name in ("a", "a", "b")] == [None] * 3
    assert len(caplog.records) == 1
    assert not (tmp_path / "a.part").exists()
    parts.write("a", "new")
    assert parts.read("a") == "NEW"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError):
        parts_in(tmp_path / "file").write("a", "text")
    with pytest.raises(FileError), only_writer(tmp_path / "file"):
        pass


def test_a_run_leaves_alone_what_is_not_its_own(tmp_path):
    (tmp_path / "000001").mkdir()
    with parts_writer(tmp_path, r"\d{6,}"):
        assert [path.name for path in tmp_path.iterdir()] == ["000001"]
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileError), parts_writer(tmp_path, r"\d{6,}"):
        pass
