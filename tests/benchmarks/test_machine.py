import torch

import statesize
from benchmarks.cases import made
from statesize.io.machine import machine


def test_machine_and_what_made_a_record():
    assert "processors" in machine()
    assert "\n" not in machine()
    versions = made("mpmath")["versions"]
    assert versions["statesize"] == statesize.__version__
    assert versions["torch"] == torch.__version__
    assert "mpmath" in versions


def test_a_system_that_describes_no_processor(monkeypatch, tmp_path):
    # As macOS and Windows, whose platform module names one.
    monkeypatch.setattr("statesize.io.machine.Path", lambda path: tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "i386 Family 6")
    assert machine().startswith("i386 Family 6, ")
