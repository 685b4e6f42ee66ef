"""What does not fit into memory is refused at once, and nothing is allocated for it."""

import resource

import pytest
import torch

from statesize.errors import EngineError
from statesize.io.machine import free_bytes
from statesize.measurement.measurement import measure
from statesize.operators import SoftmaxAttention
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES, require_memory

pytestmark = pytest.mark.skipif(free_bytes(torch.device("cpu")) is None, reason="the system does not tell what is free")


def attention():
    query = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return SoftmaxAttention(query, query, 1.0)


TOO_LARGE = [("dense", attention), ("all_cuts", attention)]


@pytest.mark.parametrize(("engine", "make"), TOO_LARGE)
def test_what_does_not_fit_is_refused_before_it_is_allocated(engine, make):
    operator = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EngineError, match=rf"engine '{engine}' would hold at least [\d,.]+ GB .* GB are free: give a "):
        measure(operator, positions=4, engine=engine)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


def test_what_is_free_is_that_of_the_system_or_of_its_group(tmp_path):
    cpu = torch.device("cpu")

    def free(device=cpu, **files):
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text, encoding="ascii")
        return free_bytes(device, tmp_path / "meminfo", tmp_path)

    assert free() is None
    assert free(meminfo="MemTotal: 9000 kB\nMemAvailable:   2000 kB\nBuffers: 1 kB\n") == 2000 * 1024
    assert free(memory_max="max\n") == 2000 * 1024
    assert free(memory_max="1000000\n") == 1_000_000
    assert free(memory_current="400000\n") == 600_000
    assert free(memory_current="1400000\n") == 0
    assert free(memory_max="9000000\n", memory_current="1\n") == 2000 * 1024
    assert free(meminfo="MemTotal: 9000 kB\n") is None
    assert free(torch.device("meta")) is None


def test_what_just_fits_is_not_refused():
    operator, cut = attention(), make_cut(400_000, [200_000])
    needed = ENGINES["dense"].footprint(operator, cut).each
    require_memory(operator, ENGINES["dense"], cut, free=needed)
    with pytest.raises(EngineError, match=r"engines hold less: implicit$"):
        require_memory(operator, ENGINES["dense"], cut, free=needed - 1)
    with pytest.raises(EngineError, match=r"or windows by past and future$"):
        require_memory(operator, ENGINES["dense"], cut, free=1000)
    # Not worth asking the system for.
    require_memory(operator, ENGINES["dense"], make_cut(1000), free=0)
