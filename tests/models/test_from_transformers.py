"""What transformers and the hub tell while files are read is kept back, and told again afterwards."""

from logging import WARNING

import pytest
from huggingface_hub.utils import logging as hub_logging
from transformers import GPT2Config, GPT2LMHeadModel, logging

import statesize as ss
from statesize.models.from_transformers import hushed
from statesize.models.load import load_tokenizer


def test_warnings_are_kept_back_for_a_while():
    loggers = [hub_logging.get_logger("huggingface_hub.utils._http"), logging.get_logger("transformers.cache")]
    levels = [one.getEffectiveLevel() for one in loggers]
    with hushed():
        assert not any(one.isEnabledFor(WARNING) for one in loggers)
    assert [one.getEffectiveLevel() for one in loggers] == levels
    assert logging.is_progress_bar_enabled()


def test_a_folder_without_files_of_a_tokenizer_is_refused(tmp_path):
    # transformers makes one of the configuration, to which all text is no tokens.
    with hushed():
        GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=60_000)).save_pretrained(tmp_path)
    assert ss.load(str(tmp_path))[1] is None
    with pytest.raises(ss.errors.FileError, match=r"^The tokenizer of .* cannot be loaded \(its vocabulary is empty"):
        load_tokenizer(str(tmp_path))
