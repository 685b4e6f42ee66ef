import torch

import statesize
from statesize.benchmarks.machine import machine, versions


def test_machine_and_versions():
    assert "processors" in machine()
    assert "\n" not in machine()
    assert versions()["statesize"] == statesize.__version__
    assert versions()["torch"] == torch.__version__
