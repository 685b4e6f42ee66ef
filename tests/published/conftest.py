"""SmolLM2-135M-Instruct, loaded once in each process."""

import pytest
from published.packages import PROSE, as_folder, gguf_file

import statesize as ss


@pytest.fixture(scope="session")
def folder(tmp_path_factory, worker_id):
    """Its dequantised weights as a folder, which all processes share."""
    base = tmp_path_factory.getbasetemp()
    return as_folder(gguf_file(), base if worker_id == "master" else base.parent)


@pytest.fixture(scope="session")
def smollm2(folder):
    """The model and its tokenizer."""
    return ss.load(str(folder))


@pytest.fixture(scope="session")
def ids(smollm2):
    """A text of 96 tokens."""
    return smollm2[1](PROSE, return_tensors="pt").input_ids[:, :96]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "prose.txt"
    path.write_text(PROSE, encoding="utf-8")
    return path
