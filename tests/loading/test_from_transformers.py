"""What transformers and the hub tell while files are read is kept back, and told again afterwards."""

from logging import WARNING

from huggingface_hub.utils import logging as hub_logging
from transformers import logging

from statesize.loading.from_transformers import hushed


def test_warnings_are_kept_back_for_a_while():
    loggers = [hub_logging.get_logger("huggingface_hub.utils._http"), logging.get_logger("transformers.cache")]
    levels = [one.getEffectiveLevel() for one in loggers]
    with hushed():
        assert not any(one.isEnabledFor(WARNING) for one in loggers)
    assert [one.getEffectiveLevel() for one in loggers] == levels
    assert logging.is_progress_bar_enabled()
