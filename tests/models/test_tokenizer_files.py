"""A tokenizer that is there must be readable, and the one that was written."""

import numpy as np
import pytest
import torch
from oracles.pretrained import save_tiny

import statesize as ss
from statesize.errors import FileError
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.models.files import DIGEST, check_digest, read_tokenizer, write_tokenizer


def flipped(path, generator):
    """A file with one bit of it the other way round."""
    content = bytearray(path.read_bytes())
    place = int(generator.integers(len(content)))
    content[place] ^= 1 << int(generator.integers(8))
    path.write_bytes(content)


@pytest.fixture
def checkpoint(tmp_path):
    config = ModelConfig(mixer="gla", vocabulary_size=4096, width=8, heads=2, layers=1, key_size=4)
    save_checkpoint(LanguageModel(config, torch.Generator().manual_seed(0)), tmp_path / "small")
    return tmp_path / "small"


def test_a_digest_shows_any_flipped_bit(checkpoint):
    generator = np.random.default_rng(0)
    for _ in range(10):
        write_tokenizer(checkpoint, zoo.tokenizer())
        assert ss.load(str(checkpoint))[1].to_str() == zoo.tokenizer().to_str()
        flipped(checkpoint / "tokenizer.json", generator)
        with pytest.raises(FileError, match=r"tokenizer\.json is damaged: it is not what tokenizer\.json\.sha256 says"):
            ss.load(str(checkpoint))


def test_a_digest_is_that_of_sha256sum(checkpoint):
    import subprocess

    write_tokenizer(checkpoint, zoo.tokenizer())
    subprocess.run(["sha256sum", "--check", "--strict", DIGEST], cwd=checkpoint, check=True, capture_output=True)


def test_without_a_digest_it_must_be_readable(checkpoint):
    assert ss.load(str(checkpoint))[1] is None
    (checkpoint / "tokenizer.json").write_text("{")
    with pytest.raises(FileError, match=r"tokenizer\.json is damaged"):
        ss.load(str(checkpoint))
    # In the folder above, where a training puts it, too.
    (checkpoint / "tokenizer.json").rename(checkpoint.parent / "tokenizer.json")
    with pytest.raises(FileError, match=r"tokenizer\.json is damaged"):
        ss.load(str(checkpoint))


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.json", "tokenizer.model"])
def test_files_of_transformers_must_be_readable(tmp_path, file):
    folder = save_tiny(tmp_path / "llama")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert ss.load(str(folder))[1] is None
    (folder / file).write_text("{")
    with pytest.raises(FileError, match=r"The tokenizer of .* cannot be loaded"):
        ss.load(str(folder))


def test_a_digest_alone(tmp_path):
    check_digest(tmp_path)
    (tmp_path / DIGEST).write_text("")
    with pytest.raises(FileError, match=r"tokenizer\.json cannot be read"):
        read_tokenizer(tmp_path)
